#include "engine/chat_template.h"

#include "engine/jinja/template.h"

namespace quire {

using jinja::Value;

ChatTemplate::ChatTemplate(const std::string& source) : template_(std::make_unique<jinja::Template>(source)) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const std::vector<Message>& messages, const std::string& bos_token,
                                 const std::string& eos_token, bool add_generation_prompt) const {
  std::vector<Value> list;
  list.reserve(messages.size());
  for (const Message& m : messages)
    list.push_back(
        Value::dict({{Value::text("role"), Value::text(m.role)}, {Value::text("content"), Value::text(m.content)}}));
  // HuggingFace passes tools and documents always; templates ask `is not none`.
  return template_->render({{"messages", Value::list(std::move(list))},
                            {"bos_token", Value::text(bos_token)},
                            {"eos_token", Value::text(eos_token)},
                            {"add_generation_prompt", Value::boolean(add_generation_prompt)},
                            {"tools", Value::none()},
                            {"documents", Value::none()}});
}

}  // namespace quire
