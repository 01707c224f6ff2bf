// Fetches what Dagster knows, where the page did not wait for it.
"use strict";

const dagster = document.getElementById("dagster");

async function readDagster() {
  try {
    const answer = await fetch(dagster.dataset.address, { credentials: "same-origin", cache: "no-store" });
    if (answer.status !== 200) throw new Error(String(answer.status));
    // The server's own page, every text of it escaped there.
    const told = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of ["dagster", "corridas"]) document.getElementById(id).replaceWith(told.getElementById(id));
  } catch {
    dagster.querySelector("[role=status]").textContent = dagster.dataset.lost;
  }
}

if (dagster.dataset.address) readDagster();
