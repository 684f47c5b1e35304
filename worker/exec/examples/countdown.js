// A worker for docs/exec.md in JavaScript (node): counts down, and can be cancelled.
const fs = require("fs");
const net = require("net");
const readline = require("readline");

const up = Number(process.env.KTRDR_EXEC_OUT);
const down = new net.Socket({ fd: Number(process.env.KTRDR_EXEC_IN), readable: true });
const say = (type, members) => fs.writeSync(up, JSON.stringify({ type, ...members }) + "\n");
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
let isCancelled = false;

async function countdown({ run, parameters: { steps } }) {
  isCancelled = false;
  for (let done = 0; done < steps; done++) {
    if (isCancelled) return say("cancelled", { run });
    say("progress", { run, percentage: (100 * done) / steps, step: `${steps - done} to go` });
    await pause(100);
  }
  say("completed", { run, result: { steps } });
}

say("describe", {
  protocol: 1,
  worker_type: "countdown_js",
  description: "Counts down.",
  request_schema: {
    type: "object",
    properties: { steps: { type: "integer", minimum: 1, maximum: 1000 } },
    required: ["steps"],
    additionalProperties: false,
  },
});
readline
  .createInterface({ input: down })
  .on("line", (line) => {
    const message = JSON.parse(line);
    if (message.type === "start") countdown(message);
    if (message.type === "cancel") isCancelled = true;
  })
  .on("close", () => process.exit(0));
