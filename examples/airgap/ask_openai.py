"""Ask the local server a question through the OpenAI SDK, unmodified, and stream the answer."""

import sys

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:11434/v1", api_key="not-needed")
stream = client.chat.completions.create(
    model="library/smollm2:135m",
    messages=[{"role": "user", "content": sys.argv[1]}],
    temperature=0,
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
