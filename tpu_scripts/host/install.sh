#!/usr/bin/env bash
# Makes ../venv with this code and its extras (tpu,gcs). Run in the code's folder; done again, it is
# quick. The images of TPU VMs may have a Python that is too old: uv then brings one.
set -euo pipefail
extras=$1
venv=$(cd .. && pwd)/venv
if [ ! -x "$venv/bin/python" ]; then
    rm -rf "$venv"
    if python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' && python3 -m venv "$venv"; then
        :
    else
        rm -rf "$venv"
        python3 -m pip install --quiet --user uv
        python3 -m uv venv --quiet --seed --python 3.12 "$venv"
    fi
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
"$venv/bin/python" -c 'import jax; print("jax", jax.__version__)'
