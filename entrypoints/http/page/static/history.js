// The charts of the history. Without this script, the table below has the same numbers.
"use strict";

const HEIGHT = 190;
const DAY = 24 * 3600;
const MISSING = "–";

const two = (number) => String(number).padStart(2, "0");

function day(seconds) {
  const date = new Date(seconds * 1000);
  return `${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`;
}

function clock(seconds) {
  const date = new Date(seconds * 1000);
  return `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
}

function scaled(value, units, step) {
  let unit = 0;
  while (value >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  return `${value >= 10 || value === Math.round(value) ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

const WRITTEN = {
  share: (value) => `${Math.round(value * 100)} %`,
  bytes: (value) => scaled(value, ["B", "kB", "MB", "GB", "TB"], 1000),
  seconds: (value) => (value < 1 ? scaled(value * 1000, ["ms"], 1000) : scaled(value, ["s"], 1000)),
  count: (value) => String(value),
};

// Durations from a millisecond to minutes are only readable on a logarithmic scale.
const SCALES = {
  share: { range: [0, 1] },
  bytes: { range: (_, low, high) => [0, Math.max(high, 1000)] },
  seconds: { distr: 3 },
  count: { range: (_, low, high) => [0, Math.max(high, 4)] },
};

function colours() {
  const style = getComputedStyle(document.documentElement);
  const named = (name) => style.getPropertyValue(name).trim();
  return {
    lines: ["--page-chart-1", "--page-chart-2", "--page-chart-3", "--page-chart-4"].map(named),
    text: named("--page-muted"),
    grid: named("--page-line"),
  };
}

function draw(place, title, chart, data) {
  const { lines, text, grid } = colours();
  const written = (value) => (value === null || value === undefined ? MISSING : WRITTEN[chart.unit](value));
  const isStep = chart.unit === "bytes" || chart.unit === "count";
  const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
  const options = {
    width: place.clientWidth,
    height: HEIGHT,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
    cursor: { drag: { x: false, y: false }, sync: { key: "history" } },
    scales: { y: SCALES[chart.unit] },
    axes: [
      {
        ...axis,
        values: (_, places) => places.map((one) => (one % DAY === 0 ? day(one) : clock(one))),
      },
      {
        ...axis,
        size: 64,
        incrs: chart.unit === "count" ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 1e5, 1e6] : undefined,
        values: (_, places) => places.map((one) => (one === null ? "" : written(one))),
      },
    ],
    series: [
      { label: data.time, value: (_, at) => (at === null ? MISSING : `${day(at)} ${clock(at)}`) },
      ...chart.series.map((one, number) => ({
        label: one.label,
        stroke: lines[number],
        width: 2,
        paths: isStep ? uPlot.paths.stepped({ align: 1 }) : undefined,
        points: isStep ? { show: false } : undefined,
        value: (_, value) => written(value),
      })),
    ],
  };
  const drawn = new uPlot(options, [data.starts, ...chart.series.map((one) => one.values)], place);
  const picture = drawn.root.querySelector(".u-wrap");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", title);
  return drawn;
}

function show() {
  const data = JSON.parse(document.getElementById("history").textContent);
  const all = document.getElementById("charts");
  all.hidden = false;
  let drawn = [];
  function drawAll() {
    for (const one of drawn) one.destroy();
    drawn = [...all.querySelectorAll(".chart")].map((figure, number) =>
      draw(figure.querySelector("div"), figure.querySelector("figcaption").textContent, data.charts[number], data));
  }
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", () => {
    for (const one of drawn) one.setSize({ width: one.root.parentElement.clientWidth, height: HEIGHT });
  });
}

show();
