// Keeps the living parts of #agora as new as the server has them, and the "34 s ago" as old as it is.
"use strict";

const now = document.getElementById("agora");
const lost = document.getElementById("perdido");
const every = 2000;
let tag = null;
let failures = 0;

function countSeconds() {
  const ago = document.getElementById("ha");
  if (!ago) return;
  const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(ago.dataset.de)) / 1000));
  const sizes = [[86400, "dias"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, unit] = sizes.find(([size]) => seconds >= 2 * size || size === 1);
  const text = ago.dataset.forma.replace("{n}", Math.floor(seconds / size)).replace("{unit}", ago.dataset[unit]);
  if (ago.textContent !== text) ago.textContent = text;
}

function replace(html) {
  const open = [...now.querySelectorAll("details")].map((each) => each.open);
  const focusable = "a, summary, [tabindex]";
  const focused = document.activeElement && document.activeElement.closest("[data-vivo]") ? document.activeElement : null;
  const at = focused ? [...now.querySelectorAll(focusable)].indexOf(focused) : -1;
  // The server's own page, every text of it escaped there.
  const told = new DOMParser().parseFromString(html, "text/html");
  for (const part of told.querySelectorAll("[data-vivo]")) document.getElementById(part.id).replaceWith(part);
  now.querySelectorAll("details").forEach((each, i) => { each.open = open[i] || false; });
  if (at >= 0) now.querySelectorAll(focusable)[at]?.focus();
}

async function look() {
  if (document.hidden) return;
  try {
    const headers = tag ? { "If-None-Match": tag } : {};
    const answer = await fetch(now.dataset.address, { headers, credentials: "same-origin", cache: "no-store" });
    if (answer.status === 401) { location.reload(); return; }
    if (answer.status === 200) {
      tag = answer.headers.get("ETag");
      replace(await answer.text());
    } else if (answer.status !== 304) {
      throw new Error(String(answer.status));
    }
    failures = 0;
    lost.hidden = true;
  } catch {
    failures += 1;
    if (failures >= 3) { lost.textContent = now.dataset.lost; lost.hidden = false; }
  }
}

async function keepLooking() {
  await look();
  countSeconds();
  setTimeout(keepLooking, every);
}

setInterval(countSeconds, 1000);
setTimeout(keepLooking, every);
document.addEventListener("visibilitychange", look);
