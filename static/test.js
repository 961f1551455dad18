// Build or paste an alert, see what each check says, send it.
"use strict";

{
  const { post, tell } = window.gatehouse;

  const builder = document.getElementById("builder");
  const text = document.getElementById("alert-text");
  const result = document.getElementById("result");

  function built() {
    const alert = {};
    for (const field of builder.elements) {
      if (field.value.trim()) alert[field.name] = field.value.trim();
    }
    return JSON.stringify(alert, null, 1);
  }

  builder.addEventListener("input", () => { text.value = built(); });
  builder.addEventListener("submit", (event) => event.preventDefault());
  text.value = built();

  function element(tag, className, content) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (content !== undefined) made.textContent = content;
    return made;
  }

  function icon(name) {
    const made = element("i", "bi bi-" + name);
    made.setAttribute("aria-hidden", "true");
    return made;
  }

  function summary(answer) {
    const line = element("p", "mb-2");
    const decision = answer.decision || "ERROR";
    line.append(element("span", "badge decision-" + decision.toLowerCase(), decision), " ", answer.reason || answer.error || "");
    return line;
  }

  function checks(list) {
    const made = element("ul", "checks");
    for (const check of list) {
      const line = element("li", check.passed ? "passed" : "refused");
      line.append(icon(check.passed ? "check-circle-fill" : "x-circle-fill"), " ", element("code", "", check.check), " ");
      line.append(element("span", "visually-hidden", check.passed ? "passed: " : "refused: "), check.reason);
      made.append(line);
    }
    return made;
  }

  function pairs(values) {
    const made = element("dl", "pairs");
    for (const [name, value] of Object.entries(values)) {
      if (value === null || value === "" || typeof value === "object") continue;
      const line = element("div");
      line.append(element("dt", "", name), element("dd", "", String(value)));
      made.append(line);
    }
    return made;
  }

  function show(answer) {
    result.replaceChildren(summary(answer));
    if (answer.order) result.append(element("h3", "", "The order that would be sent"), pairs(answer.order));
    if (answer.checks) result.append(element("h3", "", "Checks"), checks(answer.checks));
    if (answer.signal) result.append(element("h3", "", "The alert as it was understood"), pairs(answer.signal));
    if (!answer.dry_run && answer.decision) {
      const { http, status, quantity, price, broker, check, signal_id, client_order_id, orderId } = answer;
      result.append(pairs({ HTTP: http, status, quantity, price, broker, check, signal_id, client_order_id, orderId }));
    }
  }

  async function run(send) {
    for (const button of [sendButton, dryButton]) button.disabled = true;
    show(await post("/test/run", { alert: text.value, send }));
    for (const button of [sendButton, dryButton]) button.disabled = false;
  }

  const dryButton = document.getElementById("dry-run");
  const sendButton = document.getElementById("send");
  dryButton.addEventListener("click", () => run(false));
  sendButton.addEventListener("click", () => run(true));

  // --- the message for TradingView

  const message = document.getElementById("message");
  const hidden = message.textContent;
  const showButton = document.getElementById("show-secret");

  async function withSecret() {
    const answer = await post("/test/secret");
    if (!answer.message) tell(answer.error, false);
    return answer.message;
  }

  showButton.addEventListener("click", async () => {
    const isHidden = message.textContent === hidden;
    message.textContent = (isHidden && (await withSecret())) || hidden;
    showButton.lastChild.textContent = message.textContent === hidden ? " Show the secret" : " Hide the secret";
  });

  document.getElementById("copy").addEventListener("click", async () => {
    const whole = await withSecret();
    if (!whole) return;
    try {
      await navigator.clipboard.writeText(whole);
      tell("Copied", true);
    } catch {
      tell("The browser does not allow it here; show the secret and copy by hand", false);
    }
  });
}
