// The npm package "ollama": NODE SCRIPT URL FOLDER, where FOLDER has it in node_modules.
"use strict";

const assert = require("node:assert/strict");
const { createRequire } = require("node:module");

const [url, folder] = process.argv.slice(2);
const { Ollama } = createRequire(`${folder}/package.json`)("ollama");
const client = new Ollama({ host: url });
const model = "llama3.2";
const messages = [
  { role: "user", content: "What is the capital of France? Answer in one word." },
];
const options = { temperature: 0, num_predict: 24 };

async function main() {
  const { models } = await client.list();
  assert.ok(models.some((entry) => entry.name === `${model}:latest`));
  const shown = await client.show({ model });
  assert.ok(shown.capabilities.includes("completion"));

  const answer = await client.chat({ model, messages, options });
  assert.match(answer.message.content, /Paris/);
  assert.ok(answer.eval_count > 0);
  let text = "";
  for await (const part of await client.chat({ model, messages, options, stream: true })) {
    text += part.message.content;
  }
  assert.equal(text, answer.message.content);

  const schema = {
    type: "object",
    properties: { name: { enum: ["Paris", "London"] } },
    required: ["name"],
  };
  const formed = await client.chat({ model, messages, options, format: schema });
  assert.ok(["Paris", "London"].includes(JSON.parse(formed.message.content).name));

  const generated = await client.generate({ model, prompt: "The capital of France is", raw: true, options });
  assert.match(generated.response, /Paris/);
  const { embeddings } = await client.embed({ model: "nomic-embed-text", input: ["one", "two"] });
  assert.equal(embeddings.length, 2);
  assert.ok((await client.ps()).models.length > 0);

  const endless = await client.generate({ model, prompt: "Tell a long story.", stream: true });
  await assert.rejects(async () => {
    for await (const part of endless) {
      assert.ok(part);
      endless.abort();
    }
  }, { name: "AbortError" });
  await assert.rejects(client.chat({ model: "nope", messages }), /model 'nope' not found/);
  await client.copy({ source: model, destination: "me/copy" });
  await client.delete({ model: "me/copy" });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
