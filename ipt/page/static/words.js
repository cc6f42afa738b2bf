// What a person is told, in plain words.

export const noun = (task) => (task.startsWith("de") ? task.slice(2) : task);

export const percent = (value) => `${Math.round(100 * value)} %`;
const list = (tasks) => tasks.map(noun).join(" and ");
const wanted = (tasks) => tasks.map((task) => (task.startsWith("de") ? `remove ${noun(task)}` : task)).join(" and ");
const does = (tasks) => (tasks.every((task) => task.startsWith("de")) ? "removed" : "worked on");

export function sentence(told) {
  const { tasks, by, understood, probabilities, unchanged } = told;
  const same = tasks.length && unchanged ? " There was nothing to change: it is as it came." : "";
  if (by === "task") return `It ${does(tasks)} ${list(tasks)}, as you chose.${same}`;
  if (by === "instruction") return `It understood you: ${wanted(tasks)}.${same}`;
  const unclear = understood ? "Your words were not clear to it, so the picture decided. " : "";
  const [likely, sure] = ranked(probabilities)[0];
  if (tasks.length) return `${unclear}It saw ${noun(likely)} (${percent(sure)} sure) and ${does(tasks)} it.${same}`;
  if (likely === "clean") return `${unclear}It looks clean (${percent(sure)} sure), so it was left as it is.`;
  return (
    `${unclear}It is not sure what is wrong (most likely ${noun(likely)}, ${percent(sure)}), so it was left as it is. ` +
    "Say it in words, or choose."
  );
}

export const ranked = (probabilities) => Object.entries(probabilities).sort((a, b) => b[1] - a[1]);

export const whose = (told) => (told.by === "instruction" ? "What it read in your words" : "What it saw in the picture");

export function howFar({ waiting, tile, tiles, tasks }) {
  if (waiting) return `${waiting} ${waiting === 1 ? "picture is" : "pictures are"} before it`;
  if (!tile) return "Looking at it";
  const doing = does(tasks) === "removed" ? "Removing" : "Working on";
  return `${doing} ${list(tasks)}` + (tiles > 1 ? `, ${tile} of ${tiles}` : "");
}

export function facts({ width, height, format, bits }) {
  const millions = (width * height) / 1e6;
  const size = millions >= 1 ? ` (${millions.toFixed(millions < 10 ? 1 : 0)} megapixels)` : "";
  return `${width} × ${height}${size}, ${format}${bits > 8 ? `, ${bits} bits` : ""}`;
}

// Of a kind that has two suffixes only the longer one; of HEIC and HEIF the one that people know.
export const kinds = (suffixes) =>
  suffixes.filter((suffix) => ![".jpg", ".tif", ".heif"].includes(suffix)).map((suffix) => suffix.slice(1).toUpperCase()).join(", ");

export function promise(host) {
  const here = ["localhost", "127.0.0.1", "[::1]"].includes(host);
  return here
    ? "Pictures stay on this computer and are forgotten with this page."
    : `Pictures go to ${host} alone and are forgotten with this page.`;
}

// The name to save a restored picture under: its own, unless it became a file of another kind (HEIC and AVIF do).
export function saved(name, type) {
  return name.replace(/\.(heic|heif|avif)$/i, type === "image/png" ? ".png" : ".jpg");
}
