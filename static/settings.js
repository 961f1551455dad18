// Each preference is saved by itself; what is wrong with it stands below it.
"use strict";

{
  const { post, tell } = window.gatehouse;

  async function save(form, value) {
    const problem = form.querySelector(".preference-problem");
    problem.textContent = "";
    const answer = await post("/preferences/" + form.dataset.preference, { value });
    if (answer.http === 200) location.reload();
    else problem.textContent = answer.error;
  }

  for (const form of document.querySelectorAll("[data-preference]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      save(form, form.elements.value.value);
    });
    form.querySelector("[data-default]").addEventListener("click", () => save(form, null));
  }

  document.getElementById("test-message")?.addEventListener("click", async (event) => {
    event.target.disabled = true;
    const answer = await post("/notifications/test");
    event.target.disabled = false;
    if (answer.http !== 200) return tell(answer.error, false);
    for (const { service, taken, problem } of answer.services) {
      tell(taken ? `${service} took the test message` : `${service}: ${problem}`, taken);
    }
  });
}
