// One picture before and after, with a cut between the two that a range input moves; whole, or pixel for pixel.

const $ = (id) => document.getElementById(id);
const viewer = $("viewer"), scroller = $("scroller"), sheet = $("sheet"), slider = $("slider");
const LARGEST = 3; // times its size a small picture is shown at
let now = null; // what is shown: its size in pixels and addresses
let zoomed = false;

// `shown`: {width, height, before, after, wholeBefore, wholeAfter, alt}; addresses may be missing.
export function show(shown) {
  const other = now?.key !== shown.key;
  now = shown;
  if (other) setZoom(false);
  viewer.hidden = false;
  viewer.classList.toggle("compared", Boolean(shown.after));
  viewer.classList.toggle("reading", !shown.before);
  $("before").alt = shown.after ? `${shown.alt}, before` : shown.alt;
  $("after").alt = shown.after ? `${shown.alt}, restored` : "";
  layOut();
}

export function hide() {
  now = null;
  viewer.hidden = true;
}

// On a small screen the button that asks for the work stands far below the picture.
export function bringIntoView() {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (viewer.getBoundingClientRect().bottom < innerHeight / 4) {
    viewer.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "nearest" });
  }
}

export function setZoom(on) {
  zoomed = on;
  viewer.classList.toggle("zoomed", on);
  $("zoom").setAttribute("aria-pressed", on);
  if (on) {
    scroller.tabIndex = 0;
    scroller.setAttribute("role", "region");
    scroller.setAttribute("aria-label", "Picture at actual size; the arrow keys move it");
  } else for (const name of ["tabindex", "role", "aria-label"]) scroller.removeAttribute(name);
  if (!now) return;
  layOut();
  if (on) scroller.scrollTo((sheet.offsetWidth - scroller.clientWidth) / 2, (sheet.offsetHeight - scroller.clientHeight) / 2);
}

function layOut() {
  if (!now) return;
  const { width, height } = now;
  const room = { width: $("stage").clientWidth, height: Math.max(260, 0.74 * innerHeight) };
  const fit = Math.min(room.width / width, room.height / height, LARGEST);
  const one = 1 / devicePixelRatio;
  const box = zoomed
    ? { width: Math.min(room.width, width * one), height: Math.min(room.height, height * one) }
    : { width: width * fit, height: height * fit };
  viewer.style.width = `${box.width}px`;
  viewer.style.height = `${box.height}px`;
  sheet.style.width = zoomed ? `${width * one}px` : "100%";
  sheet.style.height = zoomed ? `${height * one}px` : "100%";
  setSource($("before"), (zoomed && now.wholeBefore) || now.before);
  setSource($("after"), (zoomed && now.wholeAfter) || now.after);
  cut();
}

function setSource(image, address) {
  if (!address) image.removeAttribute("src");
  else if (image.getAttribute("src") !== address) image.src = address;
}

// Left of the cut is before, right of it after; the cut stands still while the picture is scrolled under it.
function cut() {
  const share = slider.value / slider.max;
  const x = share * viewer.clientWidth;
  const inSheet = x + scroller.scrollLeft;
  $("cut").style.left = `${x}px`;
  if (now?.after) {
    $("before").style.clipPath = `inset(0 ${Math.max(0, sheet.offsetWidth - inSheet)}px 0 0)`;
    $("after").style.clipPath = `inset(0 0 0 ${Math.max(0, inSheet)}px)`;
  } else $("before").style.clipPath = "none";
  $("tag-before").style.opacity = share > 0.12 ? 1 : 0;
  $("tag-after").style.opacity = share < 0.88 ? 1 : 0;
  slider.setAttribute("aria-valuetext", `${Math.round(100 * share)} % before, the rest restored`);
}

const STEPS = { ArrowLeft: -20, ArrowDown: -20, ArrowRight: 20, ArrowUp: 20, PageDown: -100, PageUp: 100 };
slider.addEventListener("keydown", (event) => {
  if (!(event.key in STEPS)) return;
  event.preventDefault(); // a step of the input itself is a thousandth, for the mouse
  slider.value = +slider.value + STEPS[event.key];
  cut();
});
slider.addEventListener("input", cut);
scroller.addEventListener("scroll", cut, { passive: true });
new ResizeObserver(layOut).observe($("stage"));
addEventListener("resize", layOut);

// A mouse drags the picture at actual size; touch and wheel scroll it as they scroll anything.
scroller.addEventListener("pointerdown", (event) => {
  if (!zoomed || event.pointerType !== "mouse" || event.button) return;
  event.preventDefault();
  scroller.focus();
  scroller.setPointerCapture(event.pointerId);
  const move = (moved) => scroller.scrollBy(-moved.movementX, -moved.movementY);
  scroller.addEventListener("pointermove", move);
  scroller.addEventListener("lostpointercapture", () => scroller.removeEventListener("pointermove", move), { once: true });
});
