// A model's chat template (Jinja), parsed once.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace quire {

namespace jinja {
class Template;
}

class ChatTemplate {
 public:
  explicit ChatTemplate(const std::string& source);  // Error with the line if it does not parse
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // The conversation as the model wants it, ready for Tokenizer::encode(text, parse_special = true). Error if the
  // template calls raise_exception (its text: for instance that roles must alternate) or fails.
  std::string render(const std::vector<Message>& messages, const std::string& bos_token, const std::string& eos_token,
                     bool add_generation_prompt) const;

 private:
  std::unique_ptr<jinja::Template> template_;
};

}  // namespace quire
