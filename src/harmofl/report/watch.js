"use strict";
// Asks every few seconds how far the run is, and takes new numbers in without moving what the reader looks at.
const statusLine = document.querySelector("#status");
let stamp = statusLine.dataset.stamp;
function adopt(fresh) {
  // A chart that is there already stays and gets the new numbers; everything else is taken from the new page.
  const opened = new Set([...document.querySelectorAll("details[open] > summary")].map((s) => s.textContent));
  for (const box of fresh.querySelectorAll("[data-chart]")) {
    const old = document.querySelector(`[data-chart="${CSS.escape(box.dataset.chart)}"]`);
    const view = views.get(box.dataset.chart);
    if (!old || !view) continue;
    const chart = JSON.parse(box.querySelector("script").textContent);
    box.append(old.querySelector(".live"));
    box.classList.add("drawn");
    view.data("rows", chartRows(chart)).runAsync();
  }
  for (const details of fresh.querySelectorAll("details")) {
    if (opened.has(details.querySelector("summary").textContent)) details.open = true;
  }
  document.querySelector("main").replaceWith(fresh);
  for (const box of fresh.querySelectorAll("[data-chart]:not(.drawn)")) drawChart(box);
}
async function look() {
  const told = await (await fetch("status", { cache: "no-store" })).json();
  if (told.text !== statusLine.textContent) statusLine.textContent = told.text;
  if (told.stamp === stamp) return;
  if (told.reload || !document.querySelector("main [data-chart]")) {
    location.reload();
    return;
  }
  const text = await (await fetch("page", { cache: "no-store" })).text();
  adopt(new DOMParser().parseFromString(text, "text/html").querySelector("main"));
  stamp = told.stamp;
}
async function keepLooking() {
  try {
    await look();
  } catch (error) {
    statusLine.textContent = "harmofl watch does not answer; it may have been stopped";
  }
  setTimeout(keepLooking, 2000);
}
drawing.then(keepLooking);
