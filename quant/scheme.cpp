#include "quant/scheme.h"

#include <array>
#include <cctype>

namespace quire {

namespace {

// The one table of words. `with_int8`: the weight format when activations are int8.
struct WeightWord {
  std::string_view word;
  Format format, with_int8;
  const char* help;
};
constexpr std::array kWeights = {
    WeightWord{"w8", {id<Int8>, 0}, {id<Int8>, 0}, "int8, one scale a row"},
    WeightWord{"w6", {id<E3M2>, 0}, {}, "6-bit float (e3m2), one scale a row; a16 only"},
    WeightWord{"wfp8", {id<E4M3>, 0}, {}, "8-bit float (e4m3), one scale a row; a16 only"},
    WeightWord{"w4", {id<Int4Z>, 64}, {id<TwoLevel4>, 64}, "int4 in groups of 64; with a8 QoQ's two levels"},
    WeightWord{"w4g128", {id<Int4Z>, 128}, {id<TwoLevel4>, 128}, "the same in groups of 128"},
    WeightWord{"w4row", {id<Int4Z>, 0}, {id<Int4Z>, 0}, "int4, one scale a row"},
    WeightWord{"w3", {id<Int3Z>, 64}, {id<Int3Z>, 64}, "int3 in groups of 64"},
    WeightWord{"w2", {id<Int2Z>, 64}, {id<Int2Z>, 64}, "int2 in groups of 64"},
};

struct ActivationWord {
  std::string_view word;
  Format format;
  const char* help;
};
constexpr std::array kActivations = {
    ActivationWord{"a16", {id<F32>, 0}, "stay float (what a weight word alone means)"},
    ActivationWord{"a8", {id<Int8>, 0}, "int8, one scale a token"},
    ActivationWord{"a8g64", {id<Int8>, 64}, "int8, one scale for 64 channels of a token"},
};

struct CacheWord {
  std::string_view word;
  KvFormat k, v;
  const char* help;
};
constexpr CacheWord row_word(std::string_view word, Codec codec, const char* help) {
  return {word, {codec, 0, 1, Order::natural}, {codec, 0, 1, Order::natural}, help};
}
constexpr std::array kCaches = {
    row_word("kvf16", id<F16>, "half floats (the default)"),
    row_word("kv8", id<UInt8O>, "8 bits, scaled by token and head"),
    row_word("kvfp8", id<E4M3>, "8-bit float (e4m3), static scale"),
    CacheWord{"k8v4", {id<UInt8O>}, {id<UInt4O>}, "keys as kv8, values as kv4"},
    CacheWord{
        "kv4", {id<UInt4O>, 1, 64}, {id<UInt4O>}, "4 bits; keys by channel in pages of 64 tokens, values by token"},
    CacheWord{"kv2",
              {id<UInt2O>, 1, 32},
              {id<UInt2O>, 32, 1, Order::value_tiles},
              "2 bits; keys by channel and 32 tokens, values by token and 32 channels"},
    row_word("kv4row", id<UInt4O>, "4 bits, scaled by token and head"),
    row_word("kv3row", id<UInt3O>, "3 bits, scaled by token and head"),
    row_word("kv2row", id<UInt2O>, "2 bits, scaled by token and head"),
};

struct WholeWord {
  std::string_view word;
  bool native;
  Format format;
  const char* help;
};
constexpr std::array kWholes = {
    WholeWord{"own", true, {}, "the model's own formats (what no scheme means)"},
    WholeWord{"f32", false, {id<F32>, 0}, "weights decoded to f32: the exact path"},
    WholeWord{"f16", false, {id<F16>, 0}, "weights in half floats"},
    WholeWord{"bf16", false, {id<BF16>, 0}, "weights in bfloat16"},
};

template <class Table>
std::string words_of(const Table& table) {
  std::string list;
  for (const auto& entry : table) list += fmt::format("{}{}", list.empty() ? "" : " ", entry.word);
  return list;
}

// Takes the longest word of the table off the front of `text`; null if none is there.
template <class Table>
auto take(const Table& table, std::string_view& text) -> decltype(table.data()) {
  decltype(table.data()) best = nullptr;
  for (const auto& entry : table) {
    if (text.substr(0, entry.word.size()) == entry.word && (!best || entry.word.size() > best->word.size()))
      best = &entry;
  }
  if (best) text.remove_prefix(best->word.size());
  return best;
}

std::string lower(std::string_view text) {
  std::string s(text);
  for (char& c : s) c = char(std::tolower(static_cast<unsigned char>(c)));
  return s;
}

constexpr std::string_view kDefaultCache = kCaches[0].word;

KvScheme kv_scheme(const CacheWord& word) { return {std::string(word.word), word.k, word.v}; }

void set_weights(Scheme& scheme, const WeightWord& w, const ActivationWord& a) {
  const bool int8 = info(a.format.codec).integer;
  scheme.native = false;
  scheme.weight = int8 ? w.with_int8 : w.format;
  check(!int8 || info(scheme.weight.codec).integer,
        "scheme '{}{}': {} weights are floats and cannot be multiplied with int8 activations; {}a16 works, and with {} "
        "these do: "
        "w8 w4 w4g128 w4row w3 w2",
        w.word, a.word, w.word, w.word, a.word);
  scheme.embedding = {id<Int8>, 0};
}

}  // namespace

KvScheme parse_kv(std::string_view word) {
  const std::string s = lower(word) == "f16" ? std::string(kDefaultCache) : lower(word);
  for (const CacheWord& entry : kCaches) {
    if (entry.word == s) return kv_scheme(entry);
  }
  fail(fmt::format("unknown cache format '{}'; known are {}", word, words_of(kCaches)));
}

Scheme parse_scheme(std::string_view text, std::string_view kv) {
  const std::string lowered = lower(text);
  std::string_view rest = lowered;
  Scheme scheme;
  scheme.name.clear();
  scheme.activation = kActivations[0].format;
  const WholeWord* whole = take(kWholes, rest);
  const WeightWord* w = whole ? nullptr : take(kWeights, rest);
  const ActivationWord* a = whole ? nullptr : take(kActivations, rest);
  const CacheWord* cache = take(kCaches, rest);
  check(rest.empty(),
        "scheme '{}': cannot read '{}'. A scheme is weights ({}), activations ({}) and cache ({}), in this order, each "
        "of which may "
        "be left out, or instead of weights and activations one of {}; such as w8a8kv8, w4a16, f32, kv4",
        text, rest, words_of(kWeights), words_of(kActivations), words_of(kCaches), words_of(kWholes));
  if (whole && !whole->native) {
    scheme.native = scheme.native_activation = false;
    scheme.weight = scheme.embedding = whole->format;
    scheme.name = whole->word;
  }
  if (w && !a) a = &kActivations[0];
  if (a) {
    scheme.native_activation = false;
    scheme.activation = a->format;
  }
  if (w) {
    set_weights(scheme, *w, *a);
    scheme.name = w->word;
  }
  if (a) scheme.name += a->word;
  scheme.kv = !kv.empty() ? parse_kv(kv) : kv_scheme(cache ? *cache : kCaches[0]);
  if (scheme.kv.name != kDefaultCache) scheme.name += scheme.kv.name;
  if (scheme.name.empty()) scheme.name = kWholes[0].word;
  return scheme;
}

Scheme choose_scheme(std::string_view text, std::string_view kv, const std::optional<Scheme>& stored) {
  const Scheme asked = parse_scheme(text, kv);
  if (!stored || !asked.native || !asked.native_activation) return asked;
  const std::string word = lower(text);
  if (kv.empty() && (word.empty() || word == "own")) return *stored;
  Scheme scheme = *stored;
  // The name without its cache, which ends it.
  const std::string& old = stored->kv.name;
  if (scheme.name.size() > old.size() && scheme.name.compare(scheme.name.size() - old.size(), old.size(), old) == 0) {
    scheme.name.resize(scheme.name.size() - old.size());
  }
  scheme.kv = asked.kv;
  if (scheme.kv.name != kDefaultCache) scheme.name += scheme.kv.name;
  if (scheme.name.empty()) scheme.name = kWholes[0].word;
  return scheme;
}

std::string scheme_help() {
  std::string help = "A scheme is weights, activations and cache, each optional, such as w8a8kv8, w4a16 or kv4.\n";
  const auto list = [&](const char* title, const auto& table) {
    help += fmt::format("  {}\n", title);
    for (const auto& entry : table) help += fmt::format("    {:<7} {}\n", entry.word, entry.help);
  };
  list("weights (embedding and head: int8, one scale a row)", kWeights);
  list("activations", kActivations);
  list("cache (--kv takes these alone)", kCaches);
  list("instead of weights and activations", kWholes);
  return help;
}

}  // namespace quire
