// The npm package "openai": NODE SCRIPT URL FOLDER, where FOLDER has it in node_modules.
"use strict";

const assert = require("node:assert/strict");
const { createRequire } = require("node:module");

const [url, folder] = process.argv.slice(2);
const OpenAI = createRequire(`${folder}/package.json`)("openai").default;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const model = "gpt-4o-mini";
const ask = "What is the capital of France? Answer in one word.";
const messages = [{ role: "user", content: ask }];
const tool = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: { city: { enum: ["Paris", "London"] } },
      required: ["city"],
    },
  },
};

async function main() {
  const listed = [];
  for await (const entry of client.models.list()) listed.push(entry.id);
  assert.ok(listed.includes(`${model}:latest`) || listed.includes(model), listed.join());

  const fields = { model, messages, temperature: 0, max_completion_tokens: 24 };
  const answer = await client.chat.completions.create(fields);
  assert.match(answer.choices[0].message.content, /Paris/);
  const helper = client.chat.completions.stream(fields);
  assert.equal(await helper.finalContent(), answer.choices[0].message.content);

  const called = await client.chat.completions.create({
    ...fields,
    model: "qwen2.5:0.5b",
    max_completion_tokens: 80,
    tools: [tool],
    tool_choice: "required",
  });
  const [call] = called.choices[0].message.tool_calls;
  assert.ok(["Paris", "London"].includes(JSON.parse(call.function.arguments).city));

  const prompts = ["The capital of France is", "The capital of Spain is"];
  const completed = await client.completions.create({ model, prompt: prompts, temperature: 0, max_tokens: 8 });
  assert.equal(completed.choices.length, 2);
  assert.match(completed.choices[0].text, /Paris/);

  const vectors = await client.embeddings.create({ model: "text-embedding-3-small", input: ["one", "two"] });
  assert.equal(vectors.data.length, 2);
  assert.equal(typeof vectors.data[0].embedding[0], "number");

  const asked = { model, input: ask, temperature: 0, max_output_tokens: 24 };
  const response = await client.responses.create(asked);
  assert.match(response.output_text, /Paris/);
  const final = await client.responses.stream(asked).finalResponse();
  assert.equal(final.output_text, response.output_text);

  const form = {
    type: "json_schema",
    name: "city",
    strict: true,
    schema: {
      type: "object",
      properties: { name: { enum: ["Paris", "London"] } },
      required: ["name"],
      additionalProperties: false,
    },
  };
  const formed = await client.responses.create({ ...asked, text: { format: form } });
  assert.ok(["Paris", "London"].includes(JSON.parse(formed.output_text).name));
  await assert.rejects(client.chat.completions.create({ model: "nope", messages }), OpenAI.NotFoundError);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
