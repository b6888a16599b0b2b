#include "eval/zip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>

namespace edgewise::eval {
namespace {

constexpr uint32_t kEndSignature = 0x06054b50, kEntrySignature = 0x02014b50,
                   kLocalSignature = 0x04034b50;
constexpr size_t kEndBytes = 22, kEntryBytes = 46, kLocalBytes = 30;

uint16_t U16(const std::byte* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
uint32_t U32(const std::byte* p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// Position of the end-of-directory record, which is followed by a comment of at most 64 KiB.
Result<size_t> FindEnd(std::span<const std::byte> data) {
  if (data.size() >= kEndBytes) {
    const size_t last = data.size() - kEndBytes;
    const size_t first = last > 0xFFFF ? last - 0xFFFF : 0;
    for (size_t at = last + 1; at-- > first;) {
      if (U32(&data[at]) == kEndSignature) return at;
    }
  }
  return BadInput("not a ZIP archive (no end-of-directory record)");
}

Result<std::vector<ZipEntry>> ReadDirectory(std::span<const std::byte> data) {
  EW_ASSIGN(const size_t end, FindEnd(data));
  const uint16_t count = U16(&data[end + 10]);
  size_t at = U32(&data[end + 16]);
  std::vector<ZipEntry> entries;
  for (uint16_t i = 0; i < count; ++i) {
    if (at > end || end - at < kEntryBytes || U32(&data[at]) != kEntrySignature) {
      return BadInput(fmt::format("directory entry {} is outside the archive or malformed", i));
    }
    const size_t name_bytes = U16(&data[at + 28]);
    const size_t skip = name_bytes + U16(&data[at + 30]) + U16(&data[at + 32]);
    if (end - at - kEntryBytes < skip) {
      return BadInput(fmt::format("directory entry {} runs past the end of the directory", i));
    }
    ZipEntry entry;
    entry.method = U16(&data[at + 10]);
    entry.crc = U32(&data[at + 16]);
    entry.packed_bytes = U32(&data[at + 20]);
    entry.bytes = U32(&data[at + 24]);
    entry.local_offset = U32(&data[at + 42]);
    entry.name.assign(reinterpret_cast<const char*>(&data[at + kEntryBytes]), name_bytes);
    entries.push_back(std::move(entry));
    at += kEntryBytes + skip;
  }
  return entries;
}

Status Inflate(std::span<const std::byte> packed, std::string& out) {
  z_stream stream = {};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return OutOfMemory("zlib could not start");
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int rc = inflate(&stream, Z_FINISH);
  const bool whole = rc == Z_STREAM_END && stream.avail_out == 0;
  inflateEnd(&stream);
  return whole ? Status::Ok() : BadInput("compressed data is damaged");
}

}  // namespace

Result<ZipFile> ZipFile::Open(const std::string& path) {
  ZipFile zip;
  EW_ASSIGN(zip.file_, MappedFile::Open(path));
  auto entries = ReadDirectory(zip.file_->bytes());
  if (!entries.ok()) return entries.status().WithContext(path);
  zip.entries_ = std::move(entries).value();
  return zip;
}

Result<std::string> ZipFile::Read(const ZipEntry& entry, uint64_t max_bytes) const {
  const std::span<const std::byte> data = file_->bytes();
  auto error = [&](std::string_view what) {
    return BadInput(fmt::format("{}: entry '{}': {}", file_->path(), entry.name, what));
  };
  if (entry.bytes > max_bytes) {
    return error(fmt::format("{} bytes, at most {} are read", entry.bytes, max_bytes));
  }
  if (entry.local_offset > data.size() || data.size() - entry.local_offset < kLocalBytes ||
      U32(&data[entry.local_offset]) != kLocalSignature) {
    return error("its header is outside the archive or malformed");
  }
  const std::byte* local = &data[entry.local_offset];
  const uint64_t begin =
      entry.local_offset + kLocalBytes + uint64_t{U16(local + 26)} + U16(local + 28);
  if (begin > data.size() || data.size() - begin < entry.packed_bytes) {
    return error("its data run past the end of the archive");
  }
  const auto packed = data.subspan(begin, entry.packed_bytes);
  std::string out;
  if (entry.method == 0) {
    if (entry.packed_bytes != entry.bytes) return error("a stored entry with two sizes");
    out.assign(reinterpret_cast<const char*>(packed.data()), packed.size());
  } else if (entry.method == 8) {
    // Deflate cannot do better than about 1032:1, so a larger size is a lie: do not allocate for
    // it.
    if (entry.bytes / 1100 > entry.packed_bytes) return error("impossible compression ratio");
    out.resize(entry.bytes);
    const Status status = Inflate(packed, out);
    if (!status.ok()) return error(status.message());
  } else {
    return Unsupported(fmt::format("{}: entry '{}': compression method {}; unpack it first",
                                   file_->path(), entry.name, entry.method));
  }
  const uLong crc =
      crc32(0, reinterpret_cast<const Bytef*>(out.data()), static_cast<uInt>(out.size()));
  if (crc != entry.crc) return error("checksum does not match");
  return out;
}

}  // namespace edgewise::eval
