// Tells the values of a chart's bar under the pointer and by the arrow keys.
"use strict";

const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };

function barOf(event) {
  return event.target.closest ? event.target.closest(".bar") : null;
}

// The browser would show a <title> too: it becomes the bar's name instead.
function nameOf(bar) {
  const title = bar.querySelector("title");
  if (title) {
    bar.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  return bar.getAttribute("aria-label");
}

function show(bar) {
  const chart = bar.closest(".chart");
  const tip = chart.querySelector(".tip");
  tip.replaceChildren(...nameOf(bar).split("\n").filter(Boolean).map((line) => {
    const row = document.createElement("span");
    row.textContent = line;
    return row;
  }));
  tip.hidden = false;
  const around = chart.getBoundingClientRect();
  const place = bar.getBoundingClientRect();
  const right = place.right - around.left + 8;
  const left = place.left - around.left - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(0, right + tip.offsetWidth <= around.width ? right : left)}px`;
  for (const each of chart.querySelectorAll(".bar.told")) each.classList.remove("told");
  bar.classList.add("told");
}

function hide() {
  for (const tip of document.querySelectorAll(".tip")) tip.hidden = true;
  for (const bar of document.querySelectorAll(".bar.told")) bar.classList.remove("told");
}

document.addEventListener("pointerover", (event) => {
  const bar = barOf(event) || (document.activeElement && document.activeElement.closest(".bar:focus-visible"));
  if (bar) show(bar);
  else hide();
});

document.addEventListener("focusin", (event) => {
  const bar = barOf(event);
  if (!bar) { hide(); return; }
  for (const each of bar.parentNode.querySelectorAll(".bar")) each.setAttribute("tabindex", each === bar ? "0" : "-1");
  show(bar);
});

document.addEventListener("focusout", hide);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
  const bar = barOf(event);
  if (!bar || !(event.key in steps)) return;
  const bars = [...bar.parentNode.querySelectorAll(".bar")];
  const at = Math.max(0, Math.min(bars.length - 1, bars.indexOf(bar) + steps[event.key]));
  bars[at].focus();
  event.preventDefault();
});
