// What became of an order that its broker tells nothing of any more: the owner says it; what is wrong stands below.
"use strict";

{
  const { post, tell } = window.gatehouse;
  const dialog = document.getElementById("outcome-dialog");
  const form = dialog.querySelector("form");
  const problem = document.getElementById("outcome-problem");
  let order = "";

  // The table is drawn anew while somebody types, so the form stands beside it.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-outcome]");
    if (!button) return;
    order = button.dataset.outcome;
    document.getElementById("outcome-order").textContent = button.dataset.order;
    form.reset();
    problem.textContent = "";
    dialog.showModal();
  });

  form.querySelector("[value=no]").addEventListener("click", () => dialog.close());

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.textContent = "";
    const { executed, price } = form.elements;
    const word = { client_order_id: order, executed: executed.value };
    if (price.value) word.price = price.value;
    const answer = await post("/orders/outcome", word);
    if (answer.error) return (problem.textContent = answer.error);
    dialog.close();
    const isKnown = answer.status !== "UNKNOWN";
    tell(isKnown ? `The order is ${answer.status}` : "The order is still UNKNOWN", isKnown);
  });
}
