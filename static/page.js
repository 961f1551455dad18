// Every page: what is live on it, the hand on the switch, and what became of a click.
"use strict";

{
  const token = document.querySelector("meta[name=csrf-token]").content;

  // What was answered, or {"error": ...} when nothing was; never throws.
  async function post(path, body) {
    try {
      const reply = await fetch(path, {
        method: "POST",
        headers: { "X-CSRF-Token": token, "Content-Type": "application/json" },
        body: body === undefined ? "" : typeof body === "string" ? body : JSON.stringify(body),
      });
      if (reply.status === 401) location.assign("/login?next=" + encodeURIComponent(location.pathname));
      return { ...(await reply.json()), http: reply.status };
    } catch {
      return { http: 0, error: "no answer: is the daemon running?" };
    }
  }

  function tell(text, isGood) {
    const line = document.createElement("div");
    line.textContent = text;
    if (!isGood) line.className = "bad";
    document.getElementById("told").append(line);
    setTimeout(() => line.remove(), 8000);
  }

  // --- the switch

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-post]");
    if (!button) return;
    button.disabled = true;
    const answer = await post(button.dataset.post);
    button.disabled = false;
    tell(answer.http === 200 ? button.dataset.told : answer.error, answer.http === 200);
  });

  const dialog = document.getElementById("close-all-dialog");
  document.getElementById("close-all").addEventListener("click", () => dialog.showModal());
  dialog.addEventListener("click", async (event) => {
    const choice = event.target.closest("button");
    if (!choice) return;
    dialog.close();
    if (choice.value !== "yes") return;
    const answer = await post("/close-all");
    if (answer.http !== 200) return tell(answer.error, false);
    const failed = answer.results.filter((result) => !result.success);
    const open = answer.results.filter((result) => result.success && result.status !== "FILLED");
    const told = [`${answer.closed} closed`];
    if (open.length) told.push(`${open.length} not yet (${open[0].status})`);
    if (failed.length) told.push(`${failed.length} not: ${failed[0].reason}`);
    tell(told.join(", "), told.length === 1);
  });

  // --- what is live

  // The server says something every few seconds, if only that it is there.
  const SILENCE_MS = 12000;
  const connection = document.getElementById("connection");
  let heardAt = Date.now();

  function show(state, text) {
    if (connection.dataset.state === state) return;
    connection.dataset.state = state;
    connection.lastElementChild.textContent = text;
  }

  function heard() {
    heardAt = Date.now();
    show("live", "live");
  }

  let events;

  function listen() {
    events?.close();
    events = new EventSource("/events");
    events.addEventListener("fragments", (event) => {
      heard();
      for (const [name, html] of Object.entries(JSON.parse(event.data))) {
        for (const place of document.querySelectorAll(`[data-live="${name}"]`)) place.innerHTML = html;
        document.dispatchEvent(new CustomEvent("gatehouse:" + name));
      }
    });
    events.addEventListener("alive", heard);
    events.addEventListener("over", () => location.reload());
    events.addEventListener("error", () => {
      show("lost", "connection lost");
      // A browser tries again by itself while nobody answers, but not after an answer that is no stream.
      if (events.readyState === EventSource.CLOSED) setTimeout(tryAgain, 2000);
    });
  }

  async function tryAgain() {
    try {
      const reply = await fetch("/positions");
      if (reply.status === 401) location.reload();
      else if (document.visibilityState !== "hidden") listen();
    } catch {
      setTimeout(tryAgain, 2000);
    }
  }

  // A browser keeps six connections to one host: pages that nobody looks at must not use them up, nor a phone's battery.
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") {
      events.close();
      show("paused", "not watching");
    } else {
      heardAt = Date.now();
      listen();
    }
  });

  if (document.visibilityState !== "hidden") listen();
  setInterval(() => {
    const isWatching = document.visibilityState !== "hidden";
    if (isWatching && Date.now() - heardAt > SILENCE_MS) show("lost", "connection lost");
  }, 1000);

  // What the scripts of single pages need of it.
  window.gatehouse = { post, tell };
}
