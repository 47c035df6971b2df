"""Every limit by name, with its unit and where it comes from. Nothing reads without one.

Sizes are bytes, times seconds, unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# -- JSON documents (trust notes: size before parse, depth, no floats) ------------------------
JSON_DEPTH: Final = 32
JSON_INTEGER: Final = 2**63 - 1
MANIFEST_BYTES: Final = 4 * MIB  # OCI distribution-spec 1.1: registries accept at least 4 MiB
CONFIG_BYTES: Final = 4 * MIB
MODEL_FILES: Final = 4096  # of one model: some 700 bytes of manifest each
INDEX_BYTES: Final = 64 * MIB  # grows with the number of models in a bundle
DESCRIPTOR_BYTES: Final = 64 * MIB  # about 250 bytes per blob: some 250,000 blobs
SETTINGS_BYTES: Final = 1 * MIB

# -- names (OCI distribution-spec 1.1 "pull"; total length as in docker/distribution) -----------
NAME_CHARS: Final = 255
TAG_CHARS: Final = 128

# -- TUF metadata (python-tuf's own defaults, ngclient/config.py) ------------------------------
TUF_ROOT_BYTES: Final = 512_000
TUF_TIMESTAMP_BYTES: Final = 16_384
TUF_SNAPSHOT_BYTES: Final = 2_000_000
TUF_TARGETS_BYTES: Final = 5_000_000
TUF_ROOT_ROTATIONS: Final = 256
TUF_DELEGATIONS: Final = 32
TRUST_MEMBERS: Final = 1024  # metadata files in one bundle: roots, four roles, delegations
TRUST_TOTAL_BYTES: Final = 64 * MIB
SIGN_REQUEST_BYTES: Final = 32 * MIB  # metadata of several roles, as strings inside JSON
KEY_FILES: Final = 64  # private keys in one folder that is given with --key
WITHDRAWN_BYTES: Final = MIB  # the target advisories/withdrawn.json; a withdrawal takes ~ 300
WITHDRAWN_ENTRIES: Final = 4096  # as its schema says

# -- the archive --------------------------------------------------------------------------------
IO_CHUNK: Final = 1 * MIB  # one read; large enough for full disk speed, small enough to stay flat
BLOB_BYTES: Final = 4 * 1024 * GIB  # one blob; the largest open weights are well below 2 TiB
BUNDLE_BLOBS: Final = 1_000_000
SEGMENT_BYTES: Final = 64 * MIB  # what an interruption costs at most
VOLUMES: Final = 10_000
VOLUME_BYTES_MIN: Final = 1 * MIB

# -- the store ----------------------------------------------------------------------------------
RESUME_SECONDS: Final = 30 * 24 * 3600  # sticks come by courier; then what was staged goes
GC_GRACE_SECONDS: Final = 24 * 3600  # an import may take a day between blobs and commit
STORE_LOCK_SECONDS: Final = 30

# -- the runtime --------------------------------------------------------------------------------
HTTP_BODY_BYTES: Final = 64 * MIB  # images travel as base64 inside JSON bodies
FRAME_BYTES: Final = 96 * MIB  # one front-end/worker frame: a body plus its envelope
RENDERED_PROMPT_BYTES: Final = 32 * MIB
TEMPLATE_SECONDS: Final = 5
MAX_MESSAGES: Final = 10_000

# -- GGUF headers (format: ggml docs/gguf.md; engine: llama.cpp ggml/src/gguf.cpp) -----------------
# The largest seen: 262,000 tokens with scores, types and 515,000 merges, about 15 MiB; an embedded
# tokenizer.json may add 33 MiB.
GGUF_HEADER_BYTES: Final = 64 * MIB
GGUF_KEYS: Final = 16_384  # real files have 20 to 200
GGUF_KEY_BYTES: Final = 65_535  # the specification's own
GGUF_TENSORS: Final = 65_536  # unmerged mixtures of experts reach about 12,000
GGUF_TENSOR_NAME_BYTES: Final = 63  # GGML_MAX_NAME is 64 with its terminator
GGUF_DIMENSIONS: Final = 4  # GGML_MAX_DIMS
GGUF_ALIGNMENT: Final = 65_536  # everybody writes 32; a power of two of at least 8
GGUF_VOCABULARY: Final = 524_288  # tokens; twice the largest seen
GGUF_STRINGS: Final = 2_097_152  # items of all arrays of strings; 780,000 are the most seen
GGUF_INLINE_TEXT_BYTES: Final = 1 * MIB  # strings of one header; what is longer stays undecoded
GGUF_CHAT_TEMPLATE_BYTES: Final = 256 * KIB  # the longest seen are about 30 KiB
PROJECTOR_SIDE: Final = 16_384  # pixels; real ones see 224 to 1,536
PROJECTOR_WIDTH: Final = 65_536  # of embeddings; real ones have 768 to 8,192
GGUF_SHOWN_ITEMS: Final = 1024  # longer arrays are shown as null, as Ollama's /api/show does

# -- HTTP requests --------------------------------------------------------------------------------
HTTP_BODIES_BYTES: Final = 8 * HTTP_BODY_BYTES  # in memory at once, of all requests together
HTTP_BODY_DEPTH: Final = 64  # a JSON Schema in a tool nests some ten levels
CONTEXT_TOKENS: Final = 2**24  # longest context any model was trained for, and then some
LEAST_CONTEXT_TOKENS: Final = 4  # as in Ollama
STOP_STRINGS: Final = 64
STOP_CHARS: Final = 1024
RETRY_AFTER_SECONDS: Final = 2  # a short answer's time: a place in the queue may be free by then
LOGIT_BIASES: Final = 1024  # OpenAI documents no bound; each costs time per token
CHOICES: Final = 128  # OpenAI API reference, "n"
TOOLS: Final = 128  # per request; OpenAI API reference, "tools"
EMBED_TEXTS: Final = 2048  # per request; OpenAI API reference, "input"
EMBED_TOKENS: Final = 8192  # per text: one microbatch, whose buffers grow with it
RERANK_DOCUMENTS: Final = EMBED_TEXTS  # per request
IMAGES: Final = 64  # per request
IMAGE_BYTES: Final = 16 * MIB  # of one file; cameras write up to about 12
IMAGE_SCANS: Final = 64  # of a JPEG; encoders write about 10, each costs a pass over all pixels
IMAGE_PIXELS: Final = 64 * 10**6  # of one image: 192 MB once decoded; cameras have up to about 50
IMAGE_PIXELS_TOGETHER: Final = 128 * 10**6  # of all images of a request: 9 s of decoding at most
METADATA_PAIRS: Final = 16  # OpenAI API reference, "metadata"
METADATA_CHARS: Final = 512  # of one value; likewise
FORMAT_BYTES: Final = 64 * KIB  # of a JSON Schema that an answer is held to
FORMAT_FUEL: Final = 1_000_000  # llguidance's default: some 20 ms to build the lexer
FORMAT_ITEMS: Final = 50_000  # llguidance's default: some 3 ms per token
FORMAT_STATES: Final = 50_000  # of the lexer, 1 to 2 kB each
FORMAT_SYMBOLS: Final = 100_000  # of the grammar
TOP_LOGPROBS: Final = 20  # OpenAI API reference, "top_logprobs"
HTTP_READ_SECONDS: Final = 60  # for a body to arrive
HTTP_CONNECTIONS: Final = 2048  # at a time
OTHER_DESCRIPTORS: Final = 256  # beside them: workers, store, blobs that are read
HTTP_IDLE_SECONDS: Final = 120  # for a request, or the next one; nginx has 75
HTTP_WRITE_SECONDS: Final = 60  # for a client to read on before it is dropped
SHUTDOWN_SECONDS: Final = 10  # for a worker to end, by force at last (see WORKER_STOP_SECONDS)
GOODBYE_SECONDS: Final = 1  # for clients to take the last bytes once the server stops
STORE_THREADS: Final = 4  # that read the catalogue and model headers for the server
LOG_LINES: Final = 10_000  # waiting for a slow standard error; more are dropped

# -- the commands ----------------------------------------------------------------------------------
ANSWER_LINE_BYTES: Final = 16 * MIB  # one NDJSON line of a server; `context` of long chats is most
ANSWER_BYTES: Final = 64 * MIB  # one whole document of a server
CONNECT_SECONDS: Final = 10  # loopback answers at once or not at all
SILENCE_SECONDS: Final = 3600  # queue, load and prompt of a large model before the first token
PIPED_PROMPT_BYTES: Final = 32 * MIB  # as RENDERED_PROMPT_BYTES
PROBE_SECONDS: Final = 30  # for a confined child process to try every way out

# -- the engine ---------------------------------------------------------------------------------
TEMPLATE_MEMORY: Final = (
    256 * MIB
)  # beyond what the worker has; several times RENDERED_PROMPT_BYTES
TEMPLATE_CHARS: Final = 1 * MIB  # the longest templates in the wild are about 30 KiB
GO_TEMPLATE_CHARS: Final = 256 * KIB  # the longest of Ollama's library have some 20 KiB
GO_TEMPLATE_TOKENS: Final = 30_000
GO_TEMPLATE_DEPTH: Final = 64  # of blocks and parentheses in one another, and of calls when it runs
GO_TEMPLATE_STEPS: Final = 2_000_000  # nodes and arguments that one rendering may evaluate
GO_TEMPLATE_WIDTH: Final = 1_000  # characters that printf may pad a value to
NUM_PARALLEL: Final = 256  # LLAMA_MAX_SEQ of llama.cpp; more sequences abort the process
PROMPT_TOKENS_BESIDE: Final = 128  # prompt tokens per step while answers run, or a seed is named
SHIFTED_CONTEXTS: Final = 10  # contexts that an answer without end may fill; Ollama's bound
WORKER_FRAME_BYTES: Final = 32 * MIB  # from a worker: the token ids of a context of some 4 million
MODEL_LAYERS: Final = 512  # LLAMA_MAX_LAYERS of llama.cpp
MEMORY_RESERVE_BYTES: Final = 128 * MIB  # left free when a model is loaded: logs, bodies, others
USEFUL_CONTEXT_TOKENS: Final = 512  # a shorter context is no advice
WORKERS: Final = 64  # processes that one launcher will have at a time
LAUNCHER_SECONDS: Final = 10  # for an answer of the launcher: it only forks and execs
WORKER_STOP_SECONDS: Final = 2  # for a worker to leave by itself before it is killed

# -- encodings of large blobs ---------------------------------------------------------------------
PIECE_BYTES: Final = 8 * MIB  # raw bytes of one zstd frame: two being coded take 60 MiB of memory
PIECE_WORKERS: Final = 2  # threads of quick levels: 2 outrun most disks, and memory stays flat
PIECE_WORKERS_SLOW: Final = 16  # of slow levels, 2 pieces and about 100 MiB of tables each
CODED_BYTES: Final = 64 * KIB  # smaller blobs are not worth an encoding
SAMPLES: Final = 8  # spread over a blob, to see what an encoding would save
SAMPLE_BYTES: Final = 1 * MIB
SLOW_SAMPLES: Final = 4  # for the slowest levels, which compress about 1 MB/s
SLOW_SAMPLE_BYTES: Final = 256 * KIB

# -- deltas (bundler.chunks, bundler.archive.recipe) -----------------------------------------------
FIXED_CHUNK_BYTES: Final = 1 * MIB  # tensors are cut there; 70 GB then have 70,000 index entries
FINE_CHUNK_BYTES: Final = 4 * KIB  # average, for headers: an edited word costs one or two of them
COARSE_CHUNK_BYTES: Final = 64 * KIB  # average, for all other files (Hugging Face Xet's size)
CHUNK_RUN_ENTRIES: Final = 131_072  # sorted in memory at a time, about 12 MiB
CHUNK_ENTRIES: Final = 2**26  # of one index: a blob of BLOB_BYTES cut into COARSE_CHUNK_BYTES
RECIPE_OPERATIONS: Final = 262_144  # 20 bytes each; an edited model has some hundreds
RECIPE_BASES: Final = 64  # blobs that one recipe copies from

# -- safetensors headers (huggingface/safetensors, README "Format") --------------------------------
SAFETENSORS_HEADER_BYTES: Final = 16 * MIB  # 60,000 tensors take 8; upstream allows 100
SAFETENSORS_TENSORS: Final = 65_536  # as GGUF_TENSORS
SAFETENSORS_COMMAS: Final = 1_048_576  # of the whole header: bounds what its JSON can make
SAFETENSORS_DIMENSIONS: Final = 16  # frameworks stop at 8

# -- parity over volumes (bundler.parity) ----------------------------------------------------------
PARITY_FILES: Final = 256  # volumes and parity volumes together: elements of GF(2^8)
PARITY_LEAST_BLOCK: Final = 512  # a sector of any medium
PARITY_USUAL_BLOCK: Final = 1 * MIB
PARITY_LARGEST_BLOCK: Final = 16 * MIB
PARITY_TABLE_BYTES: Final = 64 * MIB  # 32 bytes per block: 32 TiB in the largest blocks

# -- reports that leave a site (bundler.inventory) -------------------------------------------------
REPORT_BYTES: Final = 16 * MIB  # some 200,000 blobs at 60 to 70 bytes
REPORT_BLOBS: Final = 200_000
REPORT_MODELS: Final = 10_000
SITE_KEY_BYTES: Final = 16 * KIB
QR_FRAMES: Final = 9_999  # four digits; nobody scans more
QR_FRAME_CHARS: Final = 4_296  # version 40 at level L, alphanumeric (ISO/IEC 18004, table 7)

# -- what other tools check (bundler.attestations) -------------------------------------------------
REFERRERS: Final = 16  # of one model; we make four
REFERRER_BYTES: Final = 64 * KIB  # its manifest; ours have 700 bytes
ATTESTATION_BYTES: Final = 1 * MIB  # a signature has 2 KiB, a bill of materials 4
BUNDLE_BOM_BYTES: Final = 64 * MIB  # 700 bytes per model

# -- scanning of models (bundler.scanning) ---------------------------------------------------------
TEMPLATE_SCAN_CHARS: Final = 256 * KIB  # as GGUF_CHAT_TEMPLATE_BYTES
TEMPLATE_SCAN_TOKENS: Final = 30_000  # of Jinja; the longest templates seen have some 9,000
TEMPLATE_SCAN_REPEAT: Final = 10_000  # times that a template may say something again
TEMPLATE_SCAN_NUMBER: Final = 1_000_000
TEMPLATE_SCAN_LITERAL: Final = 512  # characters of a string without a space
TEMPLATE_SCAN_LOOPS: Final = 5  # in one another
TEMPLATE_SCAN_PROSE: Final = 16 * KIB  # characters; the wordiest seen has some 10,000

# -- approvals by other operators (bundler.approval) -----------------------------------------------
REQUEST_BYTES: Final = 4 * MIB  # some 10,000 models, or 1,000 with findings
APPROVAL_BYTES: Final = 8 * MIB  # holds its request in base64
APPROVALS: Final = 64  # files given at once
SCAN_TEMPLATES: Final = 16  # chat templates of one model; the most seen are 3
SCAN_GGUF_KEYS: Final = 512  # real files have 20 to 200
SCAN_GGUF_HEADER_BYTES: Final = 48 * MIB
SCAN_GGUF_ITEMS: Final = 4096  # of an array that is no vocabulary: one per layer, or per expert
SCAN_GGUF_TEXT: Final = 64 * KIB
SCAN_PICKLE_BYTES: Final = 1 * MIB  # of a file's start
SCAN_PICKLE_OPCODES: Final = 100_000
SCAN_MEMBER_BYTES: Final = 64 * KIB  # of each file in a zip
SCAN_ZIP_END: Final = 22 + 65_535  # where its directory is found (APPNOTE 4.3.16)
SCAN_ZIP_DIRECTORY: Final = 4 * MIB
SCAN_ZIP_MEMBERS: Final = 4096
SCAN_XZ_MEMORY: Final = 64 * MIB

# -- evidence: receipts and the audit log (registry.auditlog, bundler.evidence) --------------------
NOTE_BYTES: Final = 8 * KIB  # a checkpoint has 200 bytes, and 170 for each signature
NOTE_SIGNATURES: Final = 16  # c2sp.org/signed-note: what readers must accept at least
COUNTERSIGNATURES: Final = 64  # in one bundle
AUDIT_FINDINGS: Final = 1000  # kept while a log is verified; more are counted
AUDIT_WINDOW: Final = 256  # entries looked ahead for one that was moved
AUDIT_EXPORT_ENTRIES: Final = 50_000  # in one file of REPORT_BYTES
PROOF_BYTES: Final = 2 * MIB  # a path of 62 hashes is small; an entry may have 1 MiB

# -- who may use the server, and what is kept about it (runtime.access, runtime.server) ------------
API_KEYS: Final = 1000  # of one site; each is looked up by its id
API_KEYS_BYTES: Final = MIB  # their file: some 400 bytes each
API_KEY_CHARS: Final = 256  # of a header's key; ours have some 65
KEYS_RELOAD_SECONDS: Final = 1.0  # a revoked key works for that long at most
RATE_WINDOW_SECONDS: Final = 60  # limits are per minute
METRICS_MODELS: Final = 200  # label values; what comes later is counted as "other"
AUDIT_LINES: Final = 1000  # waiting for a slow disk; more are lost, and counted
AUDIT_STRANGERS: Final = 60  # lines per minute about requests without a key; all are counted
AUDIT_TEXT_CHARS: Final = 64 * 1024  # of a prompt, and of an answer, where they are kept
AUDIT_TEXT_OVERLAP: Final = 4096  # looked at beyond that, so that nothing redacted is cut in half
READY_SECONDS: Final = 15.0  # a token that came this recently proves that a model generates
READY_WAIT_SECONDS: Final = 5.0  # for a token, before a probe is told "not yet"
TLS_FILE_BYTES: Final = MIB
HASH_THREADS: Final = 2  # that read models again before they answer

# -- models made here, and the mirror (runtime.modelfile, runtime.making, runtime.mirror) ----------
MODELFILE_CHARS: Final = 4 * MIB  # licences are the longest that stands in them
PART_BYTES: Final = 1 * MIB  # a template, system text, licence, messages or parameters of a model
PARTS: Final = 64  # such layers of one model; real ones have at most six
PART_MESSAGES: Final = 1000  # turns that precede every conversation
BASES: Final = 64  # models that one was made from, one from the other
UPLOADS: Final = 8  # blobs on their way in by HTTP at a time; each has a buffer of IO_CHUNK
TRANSFERS: Final = 2  # pulls and pushes at a time; each has a thread
MIRROR_SILENCE_SECONDS: Final = 30  # without a byte from the mirror
MIRROR_ANSWER_BYTES: Final = 64 * KIB  # an error document of the mirror
MIRROR_REDIRECTS: Final = 3
PROGRESS_SECONDS: Final = 0.1  # between two lines of one blob's progress
