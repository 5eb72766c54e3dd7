// Adds figures to the dashboard and keeps the page up to date where the reader is.
"use strict";

const DARK = matchMedia("(prefers-color-scheme: dark)");
const FRESH_MS = 900; // between two updates
let charts = new Map();
let shown = new Map(); // the HTML of each section as the server sent it
let asked = 0; // updates so far: an answer that is overtaken is dropped

const query = () => location.search;

async function fetchText(path, accept) {
  const answer = await fetch(path, { headers: { accept } });
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}`);
  return answer.text();
}

async function update(announce) {
  const turn = ++asked;
  try {
    const [html, drawn] = await Promise.all([
      fetchText(`/billing/sections${query()}`, "text/html"),
      fetchText(`/billing/figures${query()}`, "application/json"),
    ]);
    if (turn !== asked) return;
    place(html);
    charts = new Map(JSON.parse(drawn).map((chart) => [chart.name, chart]));
    draw();
    say(announce);
  } catch (error) {
    if (turn === asked) say(`Not up to date: ${error.message}.`);
  }
}

function say(text) {
  const place = document.getElementById("live");
  if (text && place.textContent !== text) place.textContent = text;
}

// Only what is different is replaced, figures never: what is open stays open, focus and place stay.
function place(html) {
  const fresh = new DOMParser().parseFromString(`<main>${html}</main>`, "text/html");
  for (const section of fresh.querySelectorAll("main > section")) {
    const there = document.getElementById(section.id);
    const source = section.outerHTML;
    if (!there || shown.get(section.id) === source) continue;
    shown.set(section.id, source);
    morph(there, section);
  }
}

function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType === Node.TEXT_NODE && fresh.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.nodeName !== fresh.nodeName || (old.dataset && old.dataset.chart !== fresh.dataset.chart)) {
    old.replaceWith(fresh);
    return;
  }
  if (old.dataset && old.dataset.chart) return; // a figure, which Plotly has drawn
  for (const name of ["class", "id", "href", "aria-label"]) {
    const value = fresh.getAttribute(name);
    if (value !== null && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const children = [...fresh.childNodes];
  children.forEach((child, number) => {
    const there = old.childNodes[number];
    if (there) morph(there, child);
    else old.appendChild(child);
  });
  while (old.childNodes.length > children.length) old.lastChild.remove();
}

function colours() {
  const ink = DARK.matches ? "#ececec" : "#1b1b1b";
  const grid = DARK.matches ? "#3a3a3a" : "#e3e3e3";
  const axis = { gridcolor: grid, linecolor: grid, zerolinecolor: grid, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, size: 12, family: "system-ui, sans-serif" }, axis,
  };
}

// Every figure has its words at once; it is drawn when the reader comes near.
const near = new Set();
const nearness = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) near.delete(target);
    else if (!near.has(target)) {
      near.add(target);
      plot(target);
    }
  }
}, { rootMargin: "400px" });

function draw() {
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const chart = charts.get(figure.dataset.chart);
    figure.hidden = !chart;
    if (!chart) continue;
    caption(figure, chart);
    figure.querySelector(".text").textContent = chart.text;
    nearness.observe(figure);
    if (near.has(figure)) plot(figure);
  }
}

function plot(figure) {
  const chart = charts.get(figure.dataset.chart);
  if (!chart) return;
  const { axis, ...theme } = colours();
  const place = figure.querySelector(".plot");
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `${chart.title}. ${chart.text}`);
  const layout = {
    ...chart.layout, ...theme, uirevision: query(),
    xaxis: { ...axis, ...chart.layout.xaxis }, yaxis: { ...axis, ...chart.layout.yaxis },
  };
  Plotly.react(place, chart.data, layout, { displayModeBar: false, responsive: true });
}

function caption(figure, chart) {
  const place = figure.querySelector("figcaption");
  if (place.dataset.title === chart.title) return;
  place.dataset.title = chart.title;
  const title = document.createElement("span");
  title.textContent = chart.title;
  const buttons = document.createElement("span");
  for (const format of ["png", "svg"]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = format.toUpperCase();
    button.setAttribute("aria-label", `Save ${chart.title} as ${format.toUpperCase()}`);
    button.addEventListener("click", () => {
      const plot = figure.querySelector(".plot");
      Plotly.downloadImage(plot, { format, filename: chart.name, width: 1000, height: 500 });
    });
    buttons.append(button, " ");
  }
  place.replaceChildren(title, buttons);
}

function listen() {
  let due = 0;
  const source = new EventSource("/billing/live");
  source.addEventListener("changed", () => {
    if (due || document.hidden) return;
    due = setTimeout(() => {
      due = 0;
      update(`Up to date as of ${new Date().toLocaleTimeString()}.`);
    }, FRESH_MS);
  });
  source.addEventListener("error", () => say("The server does not answer; trying again."));
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) update("");
  });
}

function choose() {
  const form = document.getElementById("controls");
  form.addEventListener("change", () => {
    const wanted = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value) wanted.set(name, value);
    const text = wanted.toString();
    history.pushState(null, "", text ? `?${text}` : location.pathname);
    update("");
  });
  addEventListener("popstate", () => {
    const given = new URLSearchParams(query());
    for (const field of form.querySelectorAll("select")) field.value = given.get(field.name) || "";
    update("");
  });
}

document.documentElement.classList.add("scripted");
DARK.addEventListener("change", draw);
choose();
update("").then(listen);
