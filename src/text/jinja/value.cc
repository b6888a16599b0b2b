#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>

namespace edgewise::text::jinja {

namespace {

struct StringRep {
  MarkedText text;
  bool safe;
  HeapCharge charge;
};

struct ListRep {
  std::vector<Value> items;
  int depth;
  HeapCharge charge;
};

struct DictRep {
  Dict dict;
  int depth;
  HeapCharge charge;
};

// Comparing two values that share parts many times over could take exponential time: beyond this
// much work the answer is "not equal" and the caller, who is told the work, reports the limit.
constexpr int64_t kMaxCompareWork = int64_t{1} << 27;

// Below this a linear search beats a hash table.
constexpr size_t kIndexFrom = 12;

}  // namespace

Value Value::Undefined(std::string why) {
  Value v;
  v.ref_ = std::make_shared<std::string>(std::move(why));
  return v;
}

Value Value::Bool(bool b) {
  Value v(Kind::kBool);
  v.int_ = b ? 1 : 0;
  return v;
}

Value Value::Int(int64_t i) {
  Value v(Kind::kInt);
  v.int_ = i;
  return v;
}

Value Value::Float(double f) {
  Value v(Kind::kFloat);
  v.float_ = f;
  return v;
}

Value Value::Text(MarkedText text, HeapCharge charge, bool safe) {
  Value v(Kind::kString);
  v.ref_ = std::shared_ptr<StringRep>(new StringRep{std::move(text), safe, std::move(charge)});
  return v;
}

Value Value::List(std::vector<Value> items, HeapCharge charge) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  Value v(Kind::kList);
  v.ref_ = std::shared_ptr<ListRep>(new ListRep{std::move(items), depth + 1, std::move(charge)});
  return v;
}

Value Value::Tuple(std::vector<Value> items, HeapCharge charge) {
  Value v = List(std::move(items), std::move(charge));
  v.kind_ = Kind::kTuple;
  return v;
}

Value Value::MakeDict(std::vector<std::pair<Value, Value>> entries, HeapCharge charge) {
  int depth = 0;
  for (const auto& [key, value] : entries) {
    depth = std::max({depth, key.depth(), value.depth()});
  }
  Value v(Kind::kDict);
  v.ref_ =
      std::shared_ptr<DictRep>(new DictRep{Dict(std::move(entries)), depth + 1, std::move(charge)});
  return v;
}

Value Value::Of(std::shared_ptr<Object> object) {
  Value v(Kind::kObject);
  v.ref_ = std::move(object);
  return v;
}

const MarkedText& Value::text() const { return static_cast<const StringRep*>(ref_.get())->text; }
bool Value::safe() const { return static_cast<const StringRep*>(ref_.get())->safe; }
const std::vector<Value>& Value::items() const {
  return static_cast<const ListRep*>(ref_.get())->items;
}
const Dict& Value::dict() const { return static_cast<const DictRep*>(ref_.get())->dict; }

std::string_view Value::why_undefined() const {
  return ref_ ? std::string_view(*static_cast<const std::string*>(ref_.get()))
              : "an undefined value is used";
}

bool Value::SameAs(const Value& other) const {
  if (kind_ != other.kind_) return false;
  switch (kind_) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kBool:
    case Kind::kInt:
      return int_ == other.int_;
    case Kind::kFloat:
      return float_ == other.float_;
    case Kind::kString:
      return ref_ == other.ref_ || str() == other.str();  // Python interns what templates compare
    default:
      return ref_ == other.ref_;
  }
}

int Value::depth() const {
  if (is_sequence()) return static_cast<const ListRep*>(ref_.get())->depth;
  if (is_dict()) return static_cast<const DictRep*>(ref_.get())->depth;
  return 0;
}

Dict::Dict(std::vector<std::pair<Value, Value>> entries) : entries_(std::move(entries)) {
  if (entries_.size() < kIndexFrom) return;
  index_.reserve(entries_.size());
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].first.is_string()) index_.emplace(entries_[i].first.str(), i);
  }
}

const Value* Dict::Find(std::string_view key) const {
  if (!index_.empty()) {
    const auto it = index_.find(key);
    return it == index_.end() ? nullptr : &entries_[it->second].second;
  }
  for (const auto& [k, v] : entries_) {
    if (k.is_string() && k.str() == key) return &v;
  }
  return nullptr;
}

const Value* Dict::Find(const Value& key) const {
  if (key.is_string()) return Find(key.str());
  int64_t work = 0;
  for (const auto& [k, v] : entries_) {
    if (Equals(k, key, &work)) return &v;
  }
  return nullptr;
}

std::string_view TypeName(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kObject:
      return v.object()->type_name();
  }
  return "?";
}

bool Truthy(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return v.integer() != 0;
    case Kind::kFloat:
      return v.number() != 0;
    case Kind::kString:
      return !v.str().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !v.items().empty();
    case Kind::kDict:
      return v.dict().size() != 0;
    case Kind::kObject:
      return true;
  }
  return false;
}

namespace {

bool NumbersEqual(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  return a.number() == b.number();
}

}  // namespace

bool Equals(const Value& a, const Value& b, int64_t* work) {
  if (++*work > kMaxCompareWork) return false;
  if (a.is_number() && b.is_number()) return NumbersEqual(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kString:
      *work += static_cast<int64_t>(std::min(a.str().size(), b.str().size()));
      return a.str() == b.str();
    case Kind::kList:
    case Kind::kTuple:
      return std::equal(a.items().begin(), a.items().end(), b.items().begin(), b.items().end(),
                        [&](const Value& x, const Value& y) { return Equals(x, y, work); });
    case Kind::kDict: {
      if (a.dict().size() != b.dict().size()) return false;
      for (const auto& [key, value] : a.dict().entries()) {
        const Value* other = b.dict().Find(key);
        if (other == nullptr || !Equals(value, *other, work)) return false;
      }
      return true;
    }
    default:
      return a.SameAs(b);
  }
}

bool Hashable(const Value& v) {
  switch (v.kind()) {
    case Kind::kList:
    case Kind::kDict:
    case Kind::kUndefined:
      return false;
    case Kind::kTuple:
      return std::all_of(v.items().begin(), v.items().end(), Hashable);
    default:
      return true;
  }
}

std::optional<int> Compare(const Value& a, const Value& b, int64_t* work) {
  if (++*work > kMaxCompareWork) return std::nullopt;
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) {
      return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
    }
    return a.number() < b.number() ? -1 : a.number() > b.number();
  }
  if (a.is_string() && b.is_string()) {
    // The byte order of UTF-8 is the order of the code points.
    *work += static_cast<int64_t>(std::min(a.str().size(), b.str().size()));
    return a.str().compare(b.str());
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    const size_t n = std::min(a.items().size(), b.items().size());
    for (size_t i = 0; i < n; ++i) {
      if (Equals(a.items()[i], b.items()[i], work)) continue;
      return Compare(a.items()[i], b.items()[i], work);
    }
    return a.items().size() < b.items().size() ? -1 : a.items().size() > b.items().size();
  }
  return std::nullopt;
}

Value WithMarks(const Value& v, uint8_t marks) {
  switch (v.kind()) {
    case Kind::kString: {
      MarkedText text(std::string(v.str()));
      if (!text.bytes.empty()) {
        text.runs.push_back({0, static_cast<uint32_t>(text.bytes.size()), marks});
      }
      return Value::Text(std::move(text));
    }
    case Kind::kList:
    case Kind::kTuple: {
      std::vector<Value> items;
      items.reserve(v.items().size());
      for (const Value& item : v.items()) items.push_back(WithMarks(item, marks));
      return v.kind() == Kind::kList ? Value::List(std::move(items))
                                     : Value::Tuple(std::move(items));
    }
    case Kind::kDict: {
      std::vector<std::pair<Value, Value>> entries;
      entries.reserve(v.dict().size());
      for (const auto& [key, value] : v.dict().entries()) {
        entries.emplace_back(WithMarks(key, marks), WithMarks(value, marks));
      }
      return Value::MakeDict(std::move(entries));
    }
    default:
      return v;
  }
}

}  // namespace edgewise::text::jinja
