"use strict";
// Texts enter the page as text nodes alone, whatever they hold.

const COLOURS = [
  "#e6194b", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#7b4ea3", "#56b4e9", "#a65628",
];

/** Whether a dialogue fulfils all the filters that are set. */
function matches(dialogue, filters) {
  if (filters.kind && dialogue.kind !== filters.kind) return false;
  if (dialogue.rounds < filters.rounds) return false;
  if (filters.boxes && !dialogue.turns.some((turn) => turn.pieces.some((piece) => piece.text))) {
    return false;
  }
  return !filters.text || wholeText(dialogue).includes(filters.text);
}

function wholeText(dialogue) {
  const turnText = (turn) => turn.pieces.map((piece) => piece.text || piece).join("");
  return [dialogue.id, ...dialogue.turns.map(turnText)].join("\n").toLowerCase();
}

/** Records by place: those in the page itself, or fetched in batches from the server. `near` gives
 * all that came with one that was asked for. */
function recordsInPage(rows) {
  return {
    total: rows.length,
    at: async (place) => rows[place],
    near: () => rows,
    picture: (row, number) => row.pictures[number],
  };
}

function recordsOfServer(total, batch = 50) {
  const batches = new Map();
  const load = async (start) => {
    const answer = await fetch(`records?start=${start}&count=${batch}`);
    if (!answer.ok) throw new Error(await answer.text());
    if (batches.size > 20) batches.delete(batches.keys().next().value);
    batches.set(start, await answer.json());
  };
  const first = (place) => place - (place % batch);
  const near = (place) => batches.get(first(place));
  const at = async (place) => {
    if (!near(place)) await load(first(place));
    return near(place)[place - first(place)];
  };
  const picture = (row, number) => `picture?record=${row.index}&number=${number}`;
  return { total, at, near, picture };
}

/** The first place from `start` on, in the direction of `step`, with a dialogue that matches.
 * A record that can't be read is found where no filter is set. `goesOn` is asked at each record. */
async function find(records, filters, start, step, goesOn = () => true) {
  const unfiltered = !Object.values(filters).some(Boolean);
  for (let place = start; place >= 0 && place < records.total; place += step) {
    const row = await records.at(place);
    if (!goesOn(place)) return null;
    if (row.fault ? unfiltered : row.dialogues.some((dialogue) => matches(dialogue, filters))) {
      return place;
    }
  }
  return null;
}

function node(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) made[name] = value;
  made.append(...children);
  return made;
}

function withFound(text, searched) {
  if (!searched) return [text];
  const pieces = [];
  const lower = text.toLowerCase();
  let end = 0;
  // Letters whose small form is longer would shift the marks: leave such a text unmarked.
  if (lower.length !== text.length) return [text];
  for (let at = lower.indexOf(searched); at >= 0; at = lower.indexOf(searched, end)) {
    pieces.push(text.slice(end, at));
    end = at + searched.length;
    pieces.push(node("mark", { className: "found" }, text.slice(at, end)));
  }
  return [...pieces, text.slice(end)];
}

/** A text, what is searched marked, an opening marker of the picture made small. */
function shownText(text, searched) {
  const marker = "<image>\n";
  if (!text.startsWith(marker)) return withFound(text, searched);
  const small = node("span", { className: "marker" }, "<image> ");
  return [small, ...withFound(text.slice(marker.length), searched)];
}

function shownBox(piece) {
  const button = node("button", { className: "box", type: "button" }, piece.text);
  button.style.borderLeftColor = COLOURS[piece.box % COLOURS.length];
  const choose = (chosen) => () => chooseBox(chosen ? piece.box : null);
  button.addEventListener("mouseenter", choose(true));
  button.addEventListener("focus", choose(true));
  button.addEventListener("mouseleave", choose(false));
  button.addEventListener("blur", choose(false));
  return button;
}

function chooseBox(number) {
  const frame = document.querySelector(".frame");
  if (!frame) return;
  frame.classList.toggle("choosing", number !== null);
  for (const drawn of frame.querySelectorAll("rect")) {
    drawn.classList.toggle("chosen", drawn.dataset.box === String(number));
  }
}

function shownDialogue(dialogue, searched) {
  const rounds = dialogue.rounds === 1 ? "1 round" : `${dialogue.rounds} rounds`;
  const shown = node("section", { className: "dialogue" });
  shown.append(node("p", { className: "id" }, `${dialogue.id} · ${dialogue.kind} · ${rounds}`));
  for (const turn of dialogue.turns) {
    const pieces = turn.pieces.flatMap((piece) =>
      piece.text ? [shownBox(piece)] : shownText(piece, searched));
    shown.append(node("p", { className: `turn ${turn.role}` }, ...pieces));
  }
  return shown;
}

function usedBoxes(dialogues) {
  const pieces = dialogues.flatMap((d) => d.turns.flatMap((turn) => turn.pieces));
  return new Set(pieces.filter((piece) => piece.text).map((piece) => piece.box));
}

function overlay(boxes, used) {
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("viewBox", "0 0 1 1");
  drawing.setAttribute("preserveAspectRatio", "none");
  boxes.forEach(([x, y, width, height], number) => {
    if (!used.has(number)) return;
    for (const halo of [true, false]) {
      const drawn = document.createElementNS(space, "rect");
      const place = Object.entries({ x, y, width, height });
      place.forEach(([name, value]) => drawn.setAttribute(name, value));
      if (halo) drawn.setAttribute("class", "halo");
      else drawn.style.stroke = COLOURS[number % COLOURS.length];
      drawn.dataset.box = number;
      drawing.append(drawn);
    }
  });
  return drawing;
}

function shownPicture(name, size, source, boxes, used) {
  const pixels = size ? ` · ${size[0]} × ${size[1]} pixels` : "";
  const marked = used.size ? ` · ${used.size} boxes` : "";
  const caption = node("p", { className: "caption" }, name + pixels + marked);
  const missing = node("p", { className: "missing" }, "The picture can't be decoded.");
  if (!source) return [missing, caption];
  const image = node("img", { src: source, alt: name });
  if (size) image.style.aspectRatio = `${size[0]} / ${size[1]}`;
  const frame = node("div", { className: "frame" }, image, overlay(boxes, used));
  image.addEventListener("error", () => frame.replaceWith(missing));
  return [frame, caption];
}

/** The record's pictures one below the other; boxes are drawn where there is only one. */
function shownPictures(row, source, used) {
  const shown = row.images.flatMap((name, number) =>
    shownPicture(name, row.sizes[number], source(row, number), row.boxes, used));
  const className = row.images.length > 1 ? "several" : "";
  return node("div", { id: "picture", className }, ...shown);
}

function start(records) {
  const by = (id) => document.getElementById(id);
  let place = 0;
  let turn = 0; // counts the user's wishes, so that an older search stops

  const filters = () => ({
    text: by("text").value.trim().toLowerCase(),
    kind: by("kind").value,
    boxes: by("boxes").checked,
    rounds: Number(by("rounds").value),
  });

  const kinds = new Set();
  let learned = null;
  const learnKinds = (rows) => {
    if (rows === learned) return;
    learned = rows;
    for (const { kind } of rows.flatMap((row) => row.dialogues || [])) {
      if (!kinds.has(kind)) by("kind").append(node("option", { value: kind }, kind));
      kinds.add(kind);
    }
  };

  const show = (row, wanted) => {
    if (row.fault) {
      by("record").className = "text-only";
      by("record").replaceChildren(node("p", { className: "wrong" }, row.fault));
      by("status").textContent = "";
      return;
    }
    const dialogues = row.dialogues.filter((dialogue) => matches(dialogue, wanted));
    const texts = node("div", {}, ...dialogues.map((d) => shownDialogue(d, wanted.text)));
    by("record").className = row.images.length ? "" : "text-only";
    by("record").replaceChildren(texts);
    if (row.images.length) {
      by("record").prepend(shownPictures(row, records.picture, usedBoxes(dialogues)));
    }
    const hidden = row.dialogues.length - dialogues.length;
    const others = hidden === 1 ? "1 other dialogue" : `${hidden} other dialogues`;
    by("status").textContent = hidden ? `Not shown: ${others} of this record.` : "";
  };

  const go = async (from, step) => {
    const mine = ++turn;
    const wanted = filters();
    const goesOn = (reached) => {
      learnKinds(records.near(reached));
      if (reached % 50 === 0) by("status").textContent = `looking at record ${reached + 1} …`;
      return mine === turn;
    };
    try {
      const first = Math.min(Math.max(from || 0, 0), records.total - 1);
      const found = await find(records, wanted, first, step, goesOn);
      if (mine !== turn) return;
      if (found === null) {
        by("status").textContent = `No ${step > 0 ? "further" : "earlier"} record matches.`;
        return;
      }
      place = found;
      show(await records.at(place), wanted);
      by("place").value = place + 1;
      history.replaceState(null, "", `#${place + 1}`);
      by("previous").disabled = place === 0;
      by("next").disabled = place === records.total - 1;
    } catch (error) {
      by("status").textContent = `The records can't be read: ${error.message}`;
    }
  };

  for (const id of ["text", "kind", "boxes", "rounds"]) {
    by(id).addEventListener("input", () => go(0, 1));
  }
  by("place").addEventListener("change", () => go(Number(by("place").value) - 1, 1));
  by("previous").addEventListener("click", () => go(place - 1, -1));
  by("next").addEventListener("click", () => go(place + 1, 1));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") document.activeElement.blur();
    if (/^(INPUT|SELECT)$/.test(document.activeElement.tagName)) return;
    const step = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1 }[event.key];
    if (step && place + step >= 0 && place + step < records.total) go(place + step, step);
    if (event.key === "/") {
      by("text").focus();
      event.preventDefault();
    }
  });
  go(Number(location.hash.slice(1) || 1) - 1, 1);
}

if (typeof document !== "undefined") {
  const data = JSON.parse(document.getElementById("data").textContent);
  start(data.records ? recordsInPage(data.records) : recordsOfServer(data.total));
}
if (typeof module !== "undefined") module.exports = { matches, find, recordsInPage };
