// Lines a person types: libedit with history and completion, and messages of several lines.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quire {

class LineReader {
 public:
  // history: where lines are kept between runs (created if need be). words: what Tab completes at the start of a line.
  LineReader(std::string history, std::vector<std::string> words);
  ~LineReader();
  enum class Result { line, end, interrupted };
  // The line without its newline; with Result::interrupted what was typed so far, and the Ctrl-C counts as answered.
  Result read(const std::string& prompt, std::string& line);
  void remember(const std::string& line);

  struct State;

 private:
  std::unique_ptr<State> state_;
};

// Joins lines into a message: between a line that begins with """ and one that ends with """ every line counts; a
// backslash at the end of a line continues it on the next.
class MessageAssembler {
 public:
  // The message, if this line completes one.
  std::optional<std::string> feed(std::string_view line);
  bool open() const { return in_block_ || continued_; }
  void reset() { *this = MessageAssembler(); }

 private:
  std::string text_;
  bool in_block_ = false, continued_ = false;
};

}  // namespace quire
