// Pieces of the page that there are several of.

import { noun, percent } from "./words.js";

function element(kind, text = "", className = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  made.className = className;
  return made;
}

// A picture in the strip: a thumbnail, which comes later, its name, and how far it is.
export function stripItem(name, choose) {
  const item = element("li"), button = element("button");
  button.type = "button";
  button.append(element("span", "", "thumb"), element("span", name, "name"), element("span", "", "state"));
  button.addEventListener("click", choose);
  item.append(button);
  return item;
}

// A task and how probable it is.
export function bar(task, chance) {
  const item = element("li"), groove = element("i"), fill = element("b");
  fill.style.width = `${100 * chance}%`;
  groove.append(fill);
  groove.setAttribute("aria-hidden", true);
  item.append(element("span", noun(task)), groove, element("span", percent(chance)));
  return item;
}

// A task to choose.
export function chip(task) {
  const label = element("label"), input = element("input");
  Object.assign(input, { type: "radio", name: "wish", value: task });
  label.append(input, element("span", noun(task).replace(/^./, (first) => first.toUpperCase())));
  return label;
}
