#include "models/offline/write.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/output_file.h"
#include "models/check_finite.h"
#include "models/hf_config.h"
#include "models/hf_tokenizer.h"
#include "models/offline/hf_files.h"
#include "models/offline/shards.h"
#include "models/slice_reader.h"
#include "models/tokenizer.h"

namespace quire {

namespace {

namespace fs = std::filesystem;

// While it is there the directory is not finished; it says from what and how the directory is made.
constexpr const char* kManifest = "quire-quantize.json";
constexpr const char* kReplaced = "replaced";  // where the old directory waits until the new one has its name
// What says how text becomes tokens, in a HuggingFace directory.
constexpr const char* kTokenizerFiles[] = {"tokenizer.json",          "tokenizer.model",     "tokenizer_config.json",
                                           "special_tokens_map.json", "chat_template.jinja", "chat_template.json"};
constexpr size_t kMaxTextBytes = 100'000'000;

bool same_place(const fs::path& a, const fs::path& b) {
  std::error_code ignored;
  return fs::equivalent(a, b, ignored);
}

// Name, size and time of every file the source is made of.
nlohmann::ordered_json source_identity(const std::string& source) {
  std::map<std::string, nlohmann::ordered_json> files;
  const auto add = [&](const fs::path& path) {
    struct stat st {};
    check(stat(path.c_str(), &st) == 0, "'{}' cannot be read", path.string());
    if (!S_ISREG(st.st_mode)) return;
    files[path.filename().string()] = {st.st_size, int64_t(st.st_mtim.tv_sec), int64_t(st.st_mtim.tv_nsec)};
  };
  if (fs::is_directory(source)) {
    for (const fs::directory_entry& entry : fs::directory_iterator(source)) add(entry.path());
  } else {
    add(source);
  }
  nlohmann::ordered_json json = {{"path", fs::canonical(source).string()}};
  for (const auto& [name, stamp] : files) json["files"][name] = stamp;
  return json;
}

class DirectoryLock {
 public:
  explicit DirectoryLock(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    const bool locked = fd_ >= 0 && flock(fd_, LOCK_EX | LOCK_NB) == 0;
    if (!locked && fd_ >= 0) close(fd_);  // no destructor runs after a constructor that throws
    check(locked, "'{}' is being written by another run", path);
  }
  ~DirectoryLock() { close(fd_); }
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int fd_;
};

class Writer {
 public:
  Writer(const Context& ctx, const Checkpoint& checkpoint, const Scheme& scheme, const WriteOptions& options)
      : ctx_(ctx),
        checkpoint_(checkpoint),
        scheme_(scheme),
        options_(options),
        output_(fs::absolute(options.output).lexically_normal().string()) {
    while (output_.size() > 1 && output_.back() == '/') output_.pop_back();
    partial_ = output_ + kUnfinished;
  }

  WriteResult run() {
    check(!scheme_.native, "quantize: scheme '{}' keeps the model's own weights; name a weight format, such as w4a8",
          scheme_.name);
    const Tokenizer valid(checkpoint_.tokenizer());  // what cannot be used is not written
    check_output();
    shards_ = plan_shards(checkpoint_, scheme_, options_.shard_bytes);
    for (const Shard& shard : shards_) {
      result_.bytes += shard.data_bytes;
      result_.tensors += int64_t(shard.tensors.size());
      ++result_.files;
    }
    manifest_ = manifest_text();
    if (finished_before()) return result_;
    begin();
    const DirectoryLock lock(partial_);
    report();
    write_tokenizer();
    check_disk();
    for (const Shard& shard : shards_) write_shard(shard);
    if (shards_.size() > 1) write_text("model.safetensors.index.json", shard_index_text(shards_));
    write_text("config.json", hf_config_text(checkpoint_.config(), checkpoint_.tokenizer(), scheme_));
    finish();
    return result_;
  }

 private:
  std::string in(const std::string& directory, const std::string& name) const { return directory + "/" + name; }
  void report() const {
    check(!options_.progress || options_.progress("quantizing", done_, result_.bytes),
          "quantizing was cancelled; the same command goes on where it stopped ('{}')", partial_);
  }
  void log(const std::string& message) const {
    if (options_.log) options_.log(message);
  }

  std::string manifest_text() const {
    const nlohmann::ordered_json json = {{"quantization_config", stored_scheme_json(scheme_)},
                                         {"shard_bytes", options_.shard_bytes},
                                         {"source", source_identity(options_.source)}};
    return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  }
  std::string manifest_in(const std::string& directory) const {
    const std::string path = in(directory, kManifest);
    return fs::is_regular_file(path) ? read_text_file(path, kMaxTextBytes) : "";
  }

  // --force replaces what quantize wrote, never a directory of somebody's own.
  bool written_by_quantize() const {
    const std::string path = in(output_, "config.json");
    if (!fs::is_regular_file(path)) return false;
    const Json json = read_json_file(path, kMaxTextBytes);
    return read_stored_scheme(JsonObject(json, fmt::format("'{}'", path))).has_value();
  }

  void check_output() const {
    const fs::path parent = fs::path(output_).parent_path();
    check(fs::is_directory(parent), "quantize: the directory '{}' does not exist", parent.string());
    const fs::path source = fs::absolute(options_.source);
    check(!same_place(source, output_) && !same_place(source.parent_path(), output_),
          "quantize: '{}' holds the source; another --output is needed", output_);
    check(!same_place(options_.source, partial_), "quantize: the source is '{}', where the output is prepared",
          partial_);
    if (!fs::exists(fs::symlink_status(output_)) || !manifest_in(output_).empty()) return;
    check(options_.force, "quantize: '{}' exists; --force replaces it", output_);
    check(fs::is_directory(fs::symlink_status(output_)) && written_by_quantize(),
          "quantize: '{}' is not a directory that quantize wrote, so --force does not replace it; remove it first",
          output_);
  }

  // A run that was killed between its last two steps has left a whole directory with its manifest.
  bool finished_before() {
    const std::string found = manifest_in(output_);
    if (found.empty()) return false;
    if (found != manifest_) {
      check(options_.force, "quantize: '{}' exists; --force replaces it", output_);
      clean_up();
      return false;
    }
    clean_up();
    result_.resumed_files = result_.files;
    return true;
  }
  void clean_up() const {
    fs::remove_all(in(output_, kReplaced));
    fs::remove(in(output_, kManifest));
  }

  // Afterwards partial_ is there with this run's manifest.
  void begin() {
    if (fs::exists(fs::symlink_status(partial_))) {
      const bool directory = fs::is_directory(fs::symlink_status(partial_));
      const std::string found = directory ? manifest_in(partial_) : "";
      if (found == manifest_) return log(fmt::format("going on with '{}'", partial_));
      // Only the manifest's own beginning may be there without it.
      const bool ours = !found.empty() || (directory && std::all_of(fs::directory_iterator(partial_), {}, [](auto& e) {
                                             return e.path().filename() == std::string(kManifest) + ".tmp";
                                           }));
      check(ours, "quantize: '{}' is in the way and was not left by quantize; remove it", partial_);
      const DirectoryLock lock(partial_);
      if (!found.empty()) {
        log(fmt::format("'{}' was begun with other options or from another source; starting anew", partial_));
        // The manifest goes last, so that what is left of it stays recognisable.
        for (const fs::directory_entry& entry : fs::directory_iterator(partial_)) {
          if (entry.path().filename() != kManifest) fs::remove_all(entry.path());
        }
      }
    } else {
      check(mkdir(partial_.c_str(), 0777) == 0, "quantize: cannot make the directory '{}'", partial_);
    }
    write_text_file(in(partial_, kManifest), manifest_);
  }

  void write_text(const std::string& name, const std::string& text) {
    report();
    write_text_file(in(partial_, name), text);
  }

  // Byte for byte: others read more in these files than this engine does.
  void copy_tokenizer() {
    for (const char* name : kTokenizerFiles) {
      const std::string from = in(options_.source, name);
      if (fs::exists(from)) write_text(name, read_text_file(from, kMaxTextBytes));
    }
  }

  // Written, and read back at once: what does not come back the same is refused before the long work.
  void write_tokenizer() {
    const ModelConfig& config = checkpoint_.config();
    const TokenizerData& tokenizer = checkpoint_.tokenizer();
    if (fs::is_directory(options_.source)) {
      copy_tokenizer();
    } else {
      if (tokenizer.model == "spm") {
        write_text("tokenizer.model", tokenizer.sentencepiece);
      } else {
        write_text("tokenizer.json", hf_tokenizer_text(tokenizer));
      }
      write_text("tokenizer_config.json", hf_tokenizer_config_text(config, tokenizer));
    }
    write_text("generation_config.json", hf_generation_config_text(tokenizer));
    const Json json = parse_json(hf_config_text(config, tokenizer, scheme_), "config.json");
    const JsonObject object(json, "config.json");
    ModelConfig again = read_hf_config(object);
    again.name = config.name;  // may be any bytes in a GGUF file, and is for people only
    check(again == config, "quantize: the configuration of '{}' cannot be written to config.json", options_.source);
    check(read_hf_tokenizer(partial_, object, config.vocab) == tokenizer,
          "quantize: the tokenizer of '{}' cannot be written to a directory", options_.source);
  }

  bool is_done(const Shard& shard) const {
    std::error_code error;
    return int64_t(fs::file_size(in(partial_, shard.file), error)) == shard.file_bytes() && !error;
  }

  void check_disk() const {
    int64_t needed = 0;
    for (const Shard& shard : shards_) needed += is_done(shard) ? 0 : shard.file_bytes();
    const int64_t room = free_disk_bytes(partial_);
    check(
        room < 0 || needed <= room,
        "quantize: '{}' needs {} more bytes, and its file system has {} left; free some, and the same command goes on",
        partial_, needed, room);
  }

  void write_shard(const Shard& shard) {
    if (is_done(shard)) {
      done_ += shard.data_bytes;
      ++result_.resumed_files;
      return report();
    }
    OutputFile file(in(partial_, shard.file));
    file.write_at(0, std::as_bytes(std::span(shard.header)));
    for (size_t i = 0; i < shard.tensors.size(); ++i) {
      report();
      const ShardTensor& t = shard.tensors[i];
      check_finite(ctx_, checkpoint_, t.name);
      const OwnedTensor made = SliceReader(ctx_, checkpoint_).load(t.name, t.format);
      for (const ShardEntry& entry : shard.entries) {
        if (entry.tensor == i) write_plane(file, entry, made);
      }
      checkpoint_.release(t.name);
    }
    report();
    file.commit();
    report();
  }

  void write_plane(OutputFile& file, const ShardEntry& entry, const Tensor& t) {
    const Plane& plane = t.*entry.plane.plane;
    check(plane.rows == 1 && (plane.pitch == entry.plane.row_bytes || entry.plane.rows == 1),
          "quantize: '{}' does not lie row after row", entry.name);
    file.write_at(entry.offset, {plane.ptr, size_t(entry.plane.bytes())});
    done_ += entry.plane.bytes();
  }

  // The old directory, if there is one, is moved into the new one: at every moment one of both can be finished.
  void finish() {
    report();
    if (fs::exists(fs::symlink_status(output_))) {
      fs::remove_all(in(partial_, kReplaced));
      rename_durably(output_, in(partial_, kReplaced));
      report();
    }
    rename_durably(partial_, output_);
    if (options_.progress) options_.progress("quantizing", done_, result_.bytes);  // too late to cancel
    clean_up();
  }

  const Context& ctx_;
  const Checkpoint& checkpoint_;
  const Scheme& scheme_;
  const WriteOptions& options_;
  std::string output_, partial_, manifest_;
  std::vector<Shard> shards_;
  WriteResult result_;
  int64_t done_ = 0;
};

}  // namespace

WriteResult write_quantized(const Context& ctx, const Checkpoint& checkpoint, const Scheme& scheme,
                            const WriteOptions& options) {
  try {
    return Writer(ctx, checkpoint, scheme, options).run();
  } catch (const fs::filesystem_error& error) {
    fail(fmt::format("quantize: {}", error.what()));
  }
}

}  // namespace quire
