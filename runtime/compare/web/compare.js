"use strict";
for (const figure of document.querySelectorAll("figure")) {
  const view = figure.querySelector(".view"), range = figure.querySelector("input");
  const button = figure.querySelector("button");
  range.addEventListener("input", () => view.style.setProperty("--at", `${range.value}%`));
  button.addEventListener("click", () => {
    button.textContent = figure.classList.toggle("full") ? "fit" : "full size";
  });
}
