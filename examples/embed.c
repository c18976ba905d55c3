/* embed MODEL QUESTION: the same in C. */
#include <stdio.h>

#include "engine/quire.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  quire_options options = {.size = sizeof options, .model = argv[1], .scheme = "w8a8kv8"};
  quire_request request = {.size = sizeof request, .max_tokens = 64};
  quire_message message = {"user", argv[2]};
  quire_event event = {.size = sizeof event};
  quire_engine* engine = quire_open(&options);
  int more = engine && quire_submit_chat(engine, &message, 1, &request) ? 1 : -1;
  while (more > 0 && (more = quire_next(engine, &event)) > 0) {
    fwrite(event.text, 1, event.text_size, stdout);
    if (event.finish == QUIRE_ERROR) fprintf(stderr, "%s\n", event.error);
  }
  if (more < 0) fprintf(stderr, "%s\n", quire_last_error());
  quire_close(engine);
  return more < 0 || event.finish == QUIRE_ERROR;
}
