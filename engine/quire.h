/* Quire for C, and for whatever calls C: open a model, submit requests, take events until they are done.
 * examples/embed.c is a whole program. The C++ interface, which gives more, is engine.h.
 *
 * Errors: functions that can fail return NULL, 0 or -1 as said at each; quire_last_error() then tells this thread what
 * was wrong and what would work. No function prints, exits or throws.
 *
 * Threads: one thread at a time calls quire_next on an engine; the submitting functions and quire_cancel may be called
 * from any other meanwhile. Engines do not know of each other.
 *
 * Structs: set everything to zero, then `size` to sizeof the struct; zeros are the defaults. Structs grow at their end
 * only, so a library accepts those of older programs. QUIRE_ABI_VERSION changes when that does not hold, and is the
 * number in the name of the shared library.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define QUIRE_ABI_VERSION 0 /* 0: not promised yet, it may change with every release */

#if defined(__GNUC__)
#define QUIRE_API __attribute__((visibility("default")))
#else
#define QUIRE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct quire_engine quire_engine;

typedef struct quire_options {
  size_t size;          /* of this struct */
  const char* model;    /* a .gguf file or a HuggingFace directory; must be given */
  const char* scheme;   /* "w8a8kv8"; NULL: the model's own formats, or what it was quantized for */
  const char* kv;       /* the cache alone, "kv4"; NULL: the scheme's */
  int32_t threads;      /* 0: all cores */
  int32_t max_batch;    /* sequences at once; 0: 16 */
  int64_t context;      /* most tokens of a sequence; 0: the model's */
  int64_t memory_limit; /* bytes for weights, scratch and cache together; 0: 90 % of what is free */
  /* While loading, in the thread that opens: what is done, how much of how much (0: not known). 0 gives up. May be
   * NULL. */
  int (*progress)(void* user, const char* what, int64_t done, int64_t total);
  void (*log)(void* user,
              const char* line); /* what a person should know, such as a context that was cut; may be NULL */
  void* user;                    /* handed to both */
  const char* device;    /* "cpu", "cuda", "cuda:1"; NULL: a GPU if this build and machine have one, else the CPU */
  int32_t deterministic; /* 1: on a GPU, too, a request's results do not depend on the others; slower there */
} quire_options;

typedef struct quire_request {
  size_t size;              /* of this struct */
  int64_t max_tokens;       /* 0: until the context is full */
  float temperature;        /* 0: the likeliest token each time */
  int32_t top_k;            /* 0: all */
  float top_p;              /* 0 or 1: all */
  float min_p;              /* 0: all */
  float repetition_penalty; /* 0 or 1: none */
  float presence_penalty;
  float frequency_penalty;
  int32_t ignore_eos;      /* 1: go on after the end-of-text token */
  uint64_t seed;           /* the same seed gives the same text (on a GPU: in the same batch, or with
                          `deterministic`) */
  const char* const* stop; /* stop_count texts; an answer ends before the first that it contains */
  size_t stop_count;
} quire_request;

typedef struct quire_message {
  const char* role; /* "system", "user", "assistant" */
  const char* content;
} quire_message;

typedef enum quire_finish {
  QUIRE_RUNNING = 0, /* more events follow */
  QUIRE_STOP = 1,    /* the model ended it, or a stop text */
  QUIRE_LENGTH = 2,  /* max_tokens, or the context is full */
  QUIRE_CANCELLED = 3,
  QUIRE_ERROR = 4 /* this request failed, `error` tells why; others go on */
} quire_finish;

/* Pointers are valid until the next quire_next or quire_close of the same engine. */
typedef struct quire_event {
  size_t size;           /* of this struct */
  int64_t request;       /* what quire_submit returned */
  const char* text;      /* new text: whole UTF-8 sequences, ended by a zero; may be empty */
  size_t text_size;      /* in bytes */
  const int32_t* tokens; /* what was generated for it */
  size_t token_count;
  quire_finish finish;
  const char* error; /* with QUIRE_ERROR, else "" */
  /* With a finish that is not QUIRE_RUNNING: */
  int64_t prompt_tokens, cached_tokens, generated_tokens;
  double prompt_seconds, generation_seconds;
} quire_event;

QUIRE_API uint32_t quire_abi_version(void);   /* QUIRE_ABI_VERSION of the library */
QUIRE_API const char* quire_last_error(void); /* of this thread's last call that failed; never NULL */

QUIRE_API quire_engine* quire_open(const quire_options* options); /* NULL on error */
QUIRE_API void quire_close(quire_engine* engine);                 /* and what still runs; NULL is allowed */

/* The request's number, above 0; 0 on error. `request` may be NULL for the defaults; nothing given is kept. Plain text
 * is continued as it is; a chat goes through the model's own template, and control tokens spelled out in its messages
 * stay plain text. */
QUIRE_API int64_t quire_submit(quire_engine* engine, const char* text, const quire_request* request);
QUIRE_API int64_t quire_submit_tokens(quire_engine* engine, const int32_t* tokens, size_t count,
                                      const quire_request* request);
QUIRE_API int64_t quire_submit_chat(quire_engine* engine, const quire_message* messages, size_t count,
                                    const quire_request* request);
QUIRE_API void quire_cancel(quire_engine* engine, int64_t request); /* ends it soon, with QUIRE_CANCELLED */

/* The next event, computing until there is one: 1; 0 if every request is done; -1 on error. */
QUIRE_API int quire_next(quire_engine* engine, quire_event* event);

#ifdef __cplusplus
}
#endif
