// The page: which pictures there are, what is asked for, and what becomes of each. They live in this tab alone.

import { bar, chip, stripItem } from "./parts.js";
import * as service from "./service.js";
import * as viewer from "./viewer.js";
import * as words from "./words.js";

const $ = (id) => document.getElementById(id);
const pictures = [];
const queue = []; // of pictures; the first is at work
let current = null;
let limits = null;
let working = false;

// ---- pictures come and go

function add(files) {
  for (const file of files) {
    const picture = { file, name: file.name, state: "reading", item: null, urls: [], aborting: new AbortController() };
    pictures.push(picture);
    picture.item = stripItem(file.name, () => {
      current = picture;
      render();
    });
    $("strip").append(picture.item);
    current ??= picture;
    read(picture);
  }
  if (files.length) current = pictures[pictures.length - files.length];
  render();
}

let reading = Promise.resolve(); // one at a time: each is whole in memory while it is sent

function read(picture) {
  reading = reading.then(async () => {
    try {
      check(picture.file);
      const look = await service.look(picture.file, picture.aborting.signal);
      picture.look = look;
      picture.shown = address(picture, look.preview);
      picture.whole = look.showsFile ? address(picture, picture.file) : picture.shown;
      picture.state = "ready";
    } catch (error) {
      fail(picture, error);
    }
    render();
  });
}

function check(file) {
  if (!file.size) throw new Error("The file is empty.");
  if (limits && file.size > limits.max_body) {
    const [size, most] = [file.size, limits.max_body].map((bytes) => (bytes / 1e6).toFixed(0));
    throw new Error(`The file has ${size} MB; the limit is ${most} MB.`);
  }
}

function address(picture, blob) {
  const url = URL.createObjectURL(blob);
  picture.urls.push(url);
  return url;
}

function remove(picture) {
  picture.aborting.abort();
  leaveQueue(picture);
  picture.urls.forEach((url) => URL.revokeObjectURL(url));
  picture.item.remove();
  const place = pictures.indexOf(picture);
  pictures.splice(place, 1);
  if (current === picture) current = pictures[Math.min(place, pictures.length - 1)] ?? null;
  render();
  (current ? $("remove") : $("choose")).focus();
}

function fail(picture, error) {
  if (error.name === "AbortError") return;
  picture.state = "failed";
  picture.error = error.message;
  say(`${picture.name}: ${error.message}`);
}

// ---- restoring, one after the other

function wish() {
  const chosen = new FormData($("panel")).get("wish");
  const said = $("words").value.trim();
  const asked = { strength: $("strength").value };
  if (chosen === "words" && said) asked.instruction = said;
  else if (chosen !== "blind" && chosen !== "words") asked.task = chosen;
  return asked;
}

function enqueue(some) {
  const asked = wish();
  for (const picture of some) {
    if (!picture.look || queue.includes(picture)) continue;
    picture.asked = asked;
    picture.state = "waiting";
    picture.error = null;
    queue.push(picture);
  }
  render();
  if (!working) work();
}

async function work() {
  working = true;
  while (queue.length) {
    const picture = queue[0];
    picture.state = "working";
    picture.far = {};
    picture.aborting = new AbortController();
    say(`Restoring ${picture.name}`);
    render();
    try {
      const result = await service.restore(picture.file, picture.asked, picture.aborting.signal, (far) => {
        picture.far = far;
        render();
      });
      keep(picture, result);
      say(`${picture.name} is done. ${words.sentence(result.told)}`);
    } catch (error) {
      fail(picture, error);
    }
    queue.shift();
    const focused = document.activeElement === $("cancel"); // which goes
    render();
    if (picture !== current) continue;
    viewer.bringIntoView();
    if (focused) $(picture.state === "done" ? "download" : "restore").focus();
  }
  working = false;
}

function keep(picture, { told, restored, preview }) {
  for (const url of [picture.after, picture.restored]) if (url) URL.revokeObjectURL(url);
  picture.told = told;
  picture.restored = address(picture, restored);
  picture.saved = words.saved(picture.name, restored.type);
  picture.after = address(picture, preview);
  picture.wholeAfter = picture.look.showsFile ? picture.restored : picture.after;
  picture.state = "done";
}

function leaveQueue(picture) {
  const place = queue.indexOf(picture);
  if (place < 0) return;
  if (place > 0) queue.splice(place, 1); // the first one leaves when its request has ended
  picture.aborting.abort();
  picture.state = picture.restored ? "done" : "ready";
}

function download(picture) {
  const link = document.createElement("a");
  link.href = picture.restored;
  link.download = picture.saved;
  link.click();
}

// ---- what is seen

function stateOf({ state, far }) {
  if (state !== "working") return { reading: "reading", ready: "", waiting: "waiting", done: "restored", failed: "not possible" }[state];
  return far.tiles > 1 ? `${Math.round((100 * (far.tile - 1)) / far.tiles)} %` : "at work";
}

function renderStrip() {
  $("strip").hidden = pictures.length < 2;
  for (const picture of pictures) {
    const button = picture.item.firstChild;
    button.setAttribute("aria-current", picture === current);
    button.classList.toggle("failed", picture.state === "failed");
    button.querySelector(".state").textContent = stateOf(picture) || "\u00a0";
    if (picture.shown && !button.querySelector("img")) {
      const image = document.createElement("img");
      image.src = picture.shown;
      image.alt = "";
      button.querySelector(".thumb").append(image);
    }
  }
}

function render() {
  renderStrip();
  $("empty").hidden = Boolean(current);
  $("caption").hidden = !current;
  const problem = current?.error ?? "";
  if ($("problem").textContent !== problem) $("problem").textContent = problem; // else it would be read out again
  const ready = pictures.filter((picture) => picture.look);
  const busy = current?.state === "working" || current?.state === "waiting";
  $("restore").disabled = !current?.look || busy;
  $("restore").textContent = current?.restored ? "Restore again" : "Restore";
  $("restore").classList.toggle("primary", !current?.restored);
  $("restore-all").hidden = ready.length < 2;
  $("restore-all").textContent = `Restore all ${ready.length}`;
  renderWork(busy);
  renderOutcome();
  if (!current) return viewer.hide();
  $("name").textContent = current.name;
  $("facts").textContent = current.look ? words.facts(current.look) : "";
  $("zoom").disabled = !current.look;
  const unseen = !current.look && current.state === "failed";
  $("problem").classList.toggle("unseen-picture", unseen);
  if (unseen) return viewer.hide();
  viewer.show({
    key: current.item, alt: current.name, width: current.look?.width ?? 3, height: current.look?.height ?? 2,
    before: current.shown, after: current.after, wholeBefore: current.whole, wholeAfter: current.wholeAfter,
  });
}

function renderWork(busy) {
  $("work").hidden = !busy;
  if (!busy) return;
  const far = current.far ?? {};
  const waiting = current.state === "waiting";
  $("work-says").textContent = words.howFar(waiting ? { waiting: queue.indexOf(current) } : far);
  if (!waiting && far.tiles > 1) {
    $("progress").max = far.tiles;
    $("progress").value = far.tile - 1;
  } else $("progress").removeAttribute("value");
}

function renderOutcome() {
  const told = current?.state === "done" ? current.told : null;
  $("outcome").hidden = !told;
  if (!told) return;
  $("outcome-says").textContent = words.sentence(told);
  const chances = words.ranked(told.probabilities);
  $("bars-title").hidden = !chances.length;
  $("bars-title").textContent = words.whose(told);
  $("bars").replaceChildren(...chances.map(([task, chance]) => bar(task, chance)));
  const done = pictures.filter((picture) => picture.restored);
  $("download-all").hidden = done.length < 2;
  $("download-all").textContent = `Download all ${done.length}`;
}

function say(text) {
  $("status").textContent = text;
}

// ---- what a person does

$("choose").addEventListener("click", () => $("files").click());
$("add").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => {
  add([...$("files").files]);
  $("files").value = "";
});
$("remove").addEventListener("click", () => remove(current));
$("zoom").addEventListener("click", () => viewer.setZoom($("zoom").getAttribute("aria-pressed") !== "true"));
$("panel").addEventListener("submit", (event) => {
  event.preventDefault();
  const focused = document.activeElement === $("restore"); // which is disabled meanwhile
  enqueue([current]);
  if (focused) $("cancel").focus();
});
$("restore-all").addEventListener("click", () => enqueue(pictures));
$("cancel").addEventListener("click", () => {
  leaveQueue(current);
  say(`${current.name} was given up.`);
  render();
  $("restore").focus();
});
$("download").addEventListener("click", () => download(current));
$("download-all").addEventListener("click", async () => {
  for (const picture of pictures.filter((one) => one.restored)) {
    download(picture);
    await new Promise((done) => setTimeout(done, 200)); // browsers lose some of those that come all at once
  }
});
$("token").addEventListener("change", () => {
  service.useToken($("token").value);
  for (const picture of pictures) {
    if (picture.look || picture.state === "reading") continue;
    picture.state = "reading"; // what was refused may be allowed now
    picture.error = null;
    read(picture);
  }
  render();
});
$("words").addEventListener("input", () => {
  const said = $("words").value.trim();
  document.querySelector(`[name=wish][value=${said ? "words" : "blind"}]`).checked = true;
});
$("words").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!$("restore").disabled) $("panel").requestSubmit();
});
$("strength").addEventListener("input", () => ($("strength-says").textContent = (+$("strength").value).toFixed(2)));
addEventListener("paste", (event) => add([...(event.clipboardData?.files ?? [])]));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragged");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragged");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragged");
  add([...(event.dataTransfer?.files ?? [])]);
});

$("promise").textContent = words.promise(location.hostname);
try {
  limits = await service.about();
  $("asks-token").hidden = !limits.token;
  document.querySelector(".chips").append(...limits.tasks.map(chip));
  $("known").textContent = `It knows ${limits.tasks.map(words.noun).join(", ")}. One picture or many, of any size.`;
  $("files").accept = limits.suffixes.join(",");
  $("accepted").textContent = `${words.kinds(limits.suffixes)}; or paste one.`;
} catch (error) {
  $("problem").textContent = error.message;
}
