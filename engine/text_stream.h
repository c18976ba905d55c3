// Token bytes in, text out: only whole UTF-8 sequences leave, and nothing that may still become a stop string.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace quire {

class TextStream {
 public:
  explicit TextStream(std::vector<std::string> stop = {});

  // Text that is now certain. Bytes that cannot be UTF-8 come out as U+FFFD. After a stop string nothing more comes.
  std::string push(std::string_view bytes);
  std::string finish();  // what was held back, at the end
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stop_;
  std::string pending_;
  bool stopped_ = false;
};

}  // namespace quire
