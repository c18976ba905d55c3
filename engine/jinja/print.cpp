// Values as text, the way Python's str(), repr() and json.dumps() write them.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "base/utf8.h"
#include "engine/jinja/text.h"
#include "engine/jinja/value.h"

namespace quire::jinja {

// The shortest digits that read back as the same number; scientific from 1e16 and below 1e-4, as in Python.
std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  std::string s(buffer, end);
  const size_t e = s.find('e');
  const int exponent = std::stoi(s.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return s;  // to_chars, too, writes a sign and two digits
  const bool negative = s[0] == '-';
  std::string digits;
  for (const char c : s.substr(0, e))
    if (c >= '0' && c <= '9') digits += c;
  if (exponent < 0) {
    digits = std::string(static_cast<size_t>(-exponent), '0') + digits;
    digits.insert(1, ".");
  } else {
    const size_t whole = static_cast<size_t>(exponent) + 1;
    if (digits.size() <= whole) digits.resize(whole + 1, '0');
    digits.insert(whole, ".");
  }
  return (negative ? "-" : "") + digits;
}

namespace {

void append_quoted(std::string& out, const std::string& s) {
  const bool has_single = s.find('\'') != std::string::npos, has_double = s.find('"') != std::string::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  append_text(out, std::string(1, quote));
  for (const std::string_view c : characters(s)) {
    const auto byte = static_cast<unsigned char>(c[0]);
    if (c[0] == quote || c[0] == '\\')
      append_text(out, "\\" + std::string(c));
    else if (c[0] == '\n' || c[0] == '\r' || c[0] == '\t')
      append_text(out, c[0] == '\n' ? "\\n" : c[0] == '\r' ? "\\r" : "\\t");
    else if (byte < 0x20 || byte == 0x7F || (c.size() == 1 && byte >= 0x80))
      append_text(out, fmt::format("\\x{:02x}", byte));
    else
      append_text(out, c);
  }
  append_text(out, std::string(1, quote));
}

// Characters outside ASCII as UTF-16 in hexadecimal digits.
std::string ascii_only(const std::string& text) {
  std::string out;
  const auto add = [&](uint32_t unit) { out += fmt::format("\\u{:04x}", unit); };
  for (size_t at = 0, size = 0; at < text.size(); at += size) {
    size = std::max<size_t>(1, utf8_sequence(text, at));
    const uint32_t c = size > 1 ? utf8_decode(text, at) : static_cast<unsigned char>(text[at]);
    if (c >= 0x10000) {
      add(0xD800 + ((c - 0x10000) >> 10));
      add(0xDC00 + ((c - 0x10000) & 0x3FF));
    } else if (c == 0x7F || size > 1) {
      add(c);
    } else {
      out += text[at];
    }
  }
  return out;
}

struct Json {
  bool ensure_ascii;
  int64_t indent;
  bool sort_keys;
  std::string_view item_separator, key_separator;
  std::string out;

  void text(const std::string& s) {
    std::string quoted = "\"";
    for (const char c : s) {
      switch (c) {
        case '"':
          quoted += "\\\"";
          break;
        case '\\':
          quoted += "\\\\";
          break;
        case '\n':
          quoted += "\\n";
          break;
        case '\r':
          quoted += "\\r";
          break;
        case '\t':
          quoted += "\\t";
          break;
        case '\b':
          quoted += "\\b";
          break;
        case '\f':
          quoted += "\\f";
          break;
        default:
          if (static_cast<unsigned char>(c) < 0x20)
            quoted += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
          else
            quoted += c;
      }
    }
    append_text(out, (ensure_ascii ? ascii_only(quoted) : quoted) + "\"");
  }

  void line(int64_t level) {
    if (indent < 0) return;
    append_text(out, "\n" + std::string(static_cast<size_t>(indent * level), ' '));
  }

  // How JSON writes a key that is no text.
  static std::string key_text(const Value& key) {
    if (key.is_text()) return key.as_text();
    if (key.is(Type::none)) return "null";
    if (key.is(Type::boolean)) return key.as_boolean() ? "true" : "false";
    return to_text(key);
  }

  void container(char open, char close, size_t size, int64_t level, const std::function<void(size_t)>& item) {
    append_text(out, std::string(1, open));
    for (size_t i = 0; i < size; ++i) {
      if (i) append_text(out, item_separator);
      line(level + 1);
      item(i);
    }
    if (size) line(level);
    append_text(out, std::string(1, close));
  }

  void value(const Value& v, int64_t level) {
    switch (v.type()) {
      case Type::none:
        return append_text(out, "null");
      case Type::boolean:
        return append_text(out, v.as_boolean() ? "true" : "false");
      case Type::integer:
        return append_text(out, std::to_string(v.as_integer()));
      case Type::number: {
        const double d = v.as_number();
        return append_text(out, std::isnan(d)   ? "NaN"
                                : std::isinf(d) ? (d < 0 ? "-Infinity" : "Infinity")
                                                : number_text(d));
      }
      case Type::text:
        return text(v.as_text());
      case Type::list: {
        const auto& items = v.as_list().items;
        return container('[', ']', items.size(), level, [&](size_t i) { value(items[i], level + 1); });
      }
      case Type::dict: {
        std::vector<std::pair<std::string, const Value*>> entries;
        for (const Entry& e : v.as_dict().entries) entries.emplace_back(key_text(e.first), &e.second);
        if (sort_keys)
          std::stable_sort(entries.begin(), entries.end(),
                           [](const auto& a, const auto& b) { return a.first < b.first; });
        return container('{', '}', entries.size(), level, [&](size_t i) {
          text(entries[i].first);
          append_text(out, key_separator);
          value(*entries[i].second, level + 1);
        });
      }
      case Type::undefined:
        refuse("tojson: {}", v.hint());
      default:
        refuse("tojson: a {} has no JSON form", to_string(v.type()));
    }
  }
};

}  // namespace

void append_repr(std::string& out, const Value& value) {
  switch (value.type()) {
    case Type::undefined:
      return append_text(out, "Undefined");
    case Type::none:
      return append_text(out, "None");
    case Type::boolean:
      return append_text(out, value.as_boolean() ? "True" : "False");
    case Type::integer:
      return append_text(out, std::to_string(value.as_integer()));
    case Type::number:
      return append_text(out, number_text(value.as_number()));
    case Type::text:
      return append_quoted(out, value.as_text());
    case Type::list: {
      const List& list = value.as_list();
      append_text(out, list.tuple ? "(" : "[");
      for (size_t i = 0; i < list.items.size(); ++i) {
        if (i) append_text(out, ", ");
        append_repr(out, list.items[i]);
      }
      return append_text(out, list.tuple ? (list.items.size() == 1 ? ",)" : ")") : "]");
    }
    case Type::dict: {
      const Dict& dict = value.as_dict();
      append_text(out, "{");
      for (size_t i = 0; i < dict.entries.size(); ++i) {
        if (i) append_text(out, ", ");
        append_repr(out, dict.entries[i].first);
        append_text(out, ": ");
        append_repr(out, dict.entries[i].second);
      }
      return append_text(out, "}");
    }
    default:
      break;
  }
  refuse("a {} cannot be printed", to_string(value.type()));
}

std::string to_text(const Value& value) {
  if (value.is_text()) return value.as_text();
  if (value.is(Type::undefined)) return "";
  std::string out;
  append_repr(out, value);
  return out;
}

std::string to_json(const Value& value, bool ensure_ascii, int64_t indent, bool sort_keys,
                    std::string_view item_separator, std::string_view key_separator) {
  if (indent > 64) refuse("tojson: an indent of {}; at most 64 is supported", indent);
  Json json{ensure_ascii, indent, sort_keys, item_separator, key_separator, {}};
  json.value(value, 0);
  return std::move(json.out);
}

}  // namespace quire::jinja
