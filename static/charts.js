// Equity and daily P&L, from the same numbers as GET /performance.
"use strict";

{
  const GOOD = "#5bd1a2", BAD = "#ff8a8f", LINE = "#8ab4f8", QUIET = "#8b949e";
  const charts = new Map();

  function axes() {
    const grid = { stroke: "#30363d", width: 1 };
    return [{ stroke: QUIET, grid, space: 70 }, { stroke: QUIET, grid, size: 64 }];
  }

  function draw(name, data, series) {
    const place = document.querySelector(`[data-chart="${name}"]`);
    if (!place || !data[0].length) return;
    charts.get(name)?.destroy();
    place.replaceChildren();
    const width = place.clientWidth;
    const options = { width, height: 220, series: [{}, series], axes: axes(), legend: { show: width > 500 }, tzDate: (s) => uPlot.tzDate(new Date(s * 1e3), "Etc/UTC") };
    charts.set(name, new uPlot(options, data, place));
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", `${series.label}: ${data[0].length} points, last ${data[1].at(-1)}`);
  }

  const seconds = (time) => Date.parse(time) / 1000;

  function drawEquity(points) {
    const steps = uPlot.paths.linear();
    draw("equity", [points.map((p) => seconds(p.at)), points.map((p) => p.equity)], {
      label: "Equity", stroke: LINE, fill: "#8ab4f822", width: 2, paths: steps, points: { show: points.length < 30 },
    });
  }

  function drawDaily(days) {
    const bars = uPlot.paths.bars({ size: [0.7, 60], disp: { fill: { unit: 3, values: (u) => u.data[1].map((v) => (v < 0 ? BAD : GOOD)) } } });
    draw("daily", [days.map((d) => seconds(d.date)), days.map((d) => d.realized_pnl)], {
      label: "P&L", stroke: GOOD, fill: GOOD, width: 0, paths: bars, points: { show: false },
    });
  }

  let last;
  async function refresh() {
    try {
      const reply = await fetch("/performance");
      if (!reply.ok) return;
      last = await reply.json();
    } catch {
      return;
    }
    redraw();
  }

  function redraw() {
    if (!last) return;
    drawEquity(last.equity);
    drawDaily(last.daily);
  }

  let wait;
  function soon(work, ms) {
    clearTimeout(wait);
    wait = setTimeout(work, ms);
  }

  window.addEventListener("resize", () => soon(redraw, 200));
  // A trade changes positions, and its snapshot follows within seconds.
  document.addEventListener("gatehouse:decisions", () => soon(refresh, 3000));
  setInterval(refresh, 60000);
  refresh();
}
