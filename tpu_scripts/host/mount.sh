#!/usr/bin/env bash
# mount.sh BUCKET[/FOLDER]: mounts it read-only under ~/svit/mounts, with options for ArrayRecord.
#
# ArrayRecord reads a record here and a record there of a few large files, never a file from its
# start to its end, and the files never change:
#   file cache, for ranges too   a first read brings the whole shard to the local disk; without it
#                                every record is a request of its own, tens of milliseconds each
#   parallel downloads           a shard arrives in many streams
#   metadata that never expires  no request asks again whether a shard has changed
#   implicit folders             folders that no object stands for are seen
set -euo pipefail
place=$1
bucket=${place%%/*}
folder=$HOME/svit/mounts/$place
cache=${GCSFUSE_CACHE:-$HOME/svit/gcsfuse}
if mountpoint -q "$folder"; then
    echo "$folder is mounted already"
    exit 0
fi
if ! command -v gcsfuse >/dev/null; then
    release=$(lsb_release -c -s)
    key=/usr/share/keyrings/cloud.google.asc
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$release main" |
        sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get update -qq
    sudo apt-get install -qq -y gcsfuse
fi
mkdir -p "$folder" "$cache"
options=(
    -o ro
    --implicit-dirs
    --cache-dir "$cache"
    --file-cache-max-size-mb=-1
    --file-cache-cache-file-for-range-read
    --file-cache-enable-parallel-downloads
    --metadata-cache-ttl-secs=-1
    --stat-cache-max-size-mb=-1
)
if [ "$bucket" != "$place" ]; then
    options+=(--only-dir "${place#*/}")
fi
gcsfuse "${options[@]}" "$bucket" "$folder"
