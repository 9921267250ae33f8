"use strict";
// Sends images one after another and shows what comes back.
const drop = document.querySelector(".drop");
const input = document.querySelector("#files");
const answers = document.querySelector("#answers");
const line = document.querySelector("#status");
const TYPES = { png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", tif: "image/tiff", tiff: "image/tiff" };
function made(tag, text, parent) {
  const element = document.createElement(tag);
  element.textContent = text;
  parent.append(element);
  return element;
}
async function ask(path, file) {
  const type = TYPES[file.name.split(".").pop().toLowerCase()] || file.type || "application/octet-stream";
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": type }, body: file });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  return answer;
}
async function show(file) {
  const box = document.createElement("section");
  box.className = "answer";
  box.setAttribute("aria-label", file.name);
  made("h3", file.name, box);
  answers.prepend(box);
  try {
    const told = await (await ask("predict?pictures=true", file)).json();
    if (told.predicted) {
      made("p", `${told.predicted}, probability ${told.probabilities[told.predicted].toFixed(3)}`, box);
      const table = made("table", "", box);
      for (const [name, value] of Object.entries(told.probabilities)) {
        const row = made("tr", "", table);
        made("th", name, row).scope = "row";
        const meter = made("meter", "", made("td", "", row));
        meter.value = value;
        meter.setAttribute("aria-label", `probability of ${name}`);
        made("td", value.toFixed(3), row).className = "number";
      }
    } else {
      const overlay = made("img", "", box);
      overlay.src = `data:image/png;base64,${told.overlay}`;
      overlay.alt = `${file.name} with outlines of what was found`;
      const shares = Object.entries(told.shares).map(([name, share]) => `${name} ${(100 * share).toFixed(1)} %`);
      made("p", `Share of the image: ${shares.join(", ")}`, box);
      const link = made("a", "Download the mask", box);
      link.href = `data:image/png;base64,${told.mask}`;
      link.download = `${file.name.replace(/\.[^.]*$/, "")}-mask.png`;
    }
  } catch (error) {
    box.classList.add("failed");
    made("p", error.message, box);
  }
}
async function take(files) {
  let done = 0;
  for (const file of files) {
    line.textContent = `processing ${file.name}, ${done + 1} of ${files.length}`;
    await show(file);
    done += 1;
  }
  line.textContent = `${done} image${done === 1 ? "" : "s"} done`;
}
input.addEventListener("change", () => take([...input.files]));
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  take([...event.dataTransfer.files]);
});
