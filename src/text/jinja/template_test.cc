#include "text/jinja/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace edgewise::text::jinja {
namespace {

using ::testing::HasSubstr;

std::string Render(std::string_view source, std::string_view json = "{}") {
  std::vector<std::pair<std::string, Value>> variables;
  const Result<Value> parsed = ParseJsonValue(json);
  EXPECT_TRUE(parsed.ok()) << parsed.status().message();
  for (const auto& [key, value] : parsed->dict().entries()) {
    variables.emplace_back(std::string(key.str()), value);
  }
  std::tm now{};
  now.tm_year = 125;
  now.tm_mon = 2;
  now.tm_mday = 9;
  const Result<Template> t = Template::Parse(source);
  if (!t.ok()) return "ERROR " + t.status().message();
  const Result<MarkedText> out = t->Render(variables, now);
  return out.ok() ? out->bytes : "ERROR " + out.status().message();
}

struct Case {
  const char* source;
  const char* expected;
};

// The expectations are what Python's jinja2 gives with trim_blocks and lstrip_blocks.
TEST(Template, PythonValues) {
  const Case cases[] = {
      {"{{ [1, 'a', none, true, 1.5, (1,), {'k': \"it's\"}] }}",
       "[1, 'a', None, True, 1.5, (1,), {'k': \"it's\"}]"},
      {"{{ 1e16 }} {{ 1e-5 }} {{ 0.1 + 0.2 }} {{ 100.0 }} {{ 1/2 }}",
       "1e+16 1e-05 0.30000000000000004 100.0 0.5"},
      {"{{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 7.5 // 2 }}", "-4 2 1024 3.0"},
      {"{{ 'a' ~ 1 + 2 }}",
       "ERROR template line 1: value error: can only concatenate str (not "
       "\"int\") to str"},
      {"{{ 1 == 1.0 }} {{ true == 1 }} {{ [1] == (1,) }} {{ 'a' < 'b' }} {{ 1 < 2 < 3 }}",
       "True True False True True"},
      {"{{ 'a' in 'abc' }} {{ 2 not in [1] }} {{ 'k' in {'k': 1} }}", "True True True"},
      {"{{ 'x' if false }}|{{ missing }}|{{ missing is defined }}", "||False"},
      {"{{ missing.a }}", "ERROR template line 1: value error: 'missing' is undefined"},
      {"{{ 'héllo'[1:3] }} {{ 'héllo'[::-1] }} {{ 'héllo' | length }} {{ [1,2,3][-1] }}",
       "él olléh 5 3"},
      {"{{ '%s-%05.1f-%x' % ('a', 3.14159, 255) }} {{ '{:>4}|{}'.format(7, 'b') }}",
       "a-003.1-ff    7|b"},
      {"{{ 'a' 'b' }} {{ \"\\u00e9\\n\" | length }}", "ab 2"},
  };
  for (const Case& c : cases) EXPECT_EQ(Render(c.source), c.expected) << c.source;
}

TEST(Template, WhiteSpace) {
  const Case cases[] = {
      {"a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc"},
      {"a \n {%- if true -%} \n b {%+ endif %}", "ab "},
      {"{# x #}\ny {#- z -#}  w", "yw"},
      {"a\r\nb\rc", "a\nb\nc"},
      {"{{ 1 }}\n{{ 2 }}", "1\n2"},
      {"{% raw %}{{ x }}{% endraw %}|", "{{ x }}|"},
      {"  {{- 'a' -}}  b", "ab"},
  };
  for (const Case& c : cases) EXPECT_EQ(Render(c.source), c.expected) << c.source;
}

TEST(Template, Statements) {
  const Case cases[] = {
      {"{% for i in range(5) if i % 2 == 0 %}{{ loop.index }}{{ i }}{% if not loop.last %},"
       "{% endif %}{% else %}none{% endfor %}",
       "10,22,34"},
      {"{% for i in [] %}x{% else %}none{% endfor %}", "none"},
      {"{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}"
       "{% endif %}{{ i }}{% endfor %}",
       "0134"},
      {"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "1"},
      {"{% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}"
       "{{ ns.x }}",
       "4"},
      {"{% macro f(a, b='B') %}{{ a }}{{ b }}{{ caller() if caller }}{% endmacro %}"
       "{{ f(1) }}{{ f(1, b=2) }}{% call f(3) %}!{% endcall %}",
       "1B123B!"},
      {"{% set t %}a{{ 1 }}{% endset %}{{ t | upper }}", "A1"},
      {"{% filter upper %}ab{% endfilter %}{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}", "AB3"},
      {"{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"},
      {"{% for a in [1, 2, 3] %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.revindex }};"
       "{% endfor %}",
       "23;132;21;"},
      {"{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.cycle('a', 'b') }}{% endfor %}",
       "TrueaFalsebTruea"},
      {"{% if 0 %}a{% elif '' %}b{% elif [0] %}c{% else %}d{% endif %}", "c"},
      {"{% set a, b = 1, 2 %}{{ b }}{{ a }}", "21"},
  };
  for (const Case& c : cases) EXPECT_EQ(Render(c.source), c.expected) << c.source;
}

TEST(Template, FiltersAndTests) {
  const Case cases[] = {
      {"{{ {'b': [1, 'é\"'], 'a': none} | tojson }}", "{\"b\": [1, \"é\\\"\"], \"a\": null}"},
      {"{{ {'a': [1, {}]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1,\n    {}\n  ]\n}"},
      {"{{ [3, 1, 2] | sort | join('-') }} {{ ['b', 'A'] | sort | first }}", "1-2-3 A"},
      {"{{ [{'a': 1}, {'a': 2}] | selectattr('a', 'gt', 1) | map(attribute='a') | list }}", "[2]"},
      {"{{ ['a', none] | reject('none') | list }} {{ [1, 2] | map('string') | join }}", "['a'] 12"},
      {"{{ 'a\nb' | indent(2) }} {{ 'a\nb' | indent(2, true) }}", "a\n  b   a\n  b"},
      {"{{ missing | default('d') }} {{ '' | default('e', true) }} {{ none | d('f') }}",
       "d e None"},
      {"{{ 'hello world' | title }} {{ 'abc' | capitalize }} {{ ' x ' | trim }}|",
       "Hello World Abc x|"},
      {"{{ 2.5 | round }} {{ 2.567 | round(2) }} {{ '12' | int + 1 }} {{ 'x' | int(5) }}",
       "2.0 2.57 13 5"},
      {"{{ 1 is number }} {{ true is integer }} {{ 'a' is iterable }} {{ {} is mapping }} "
       "{{ 4 is divisibleby 2 }} {{ 'a' is in ['a'] }} {{ 1 is not none }}",
       "True False True True True True True"},
      {"{{ {'b': 1, 'a': 2} | dictsort }} {{ [1, 2, 2] | unique | list }} {{ [1, 2] | sum }}",
       "[('a', 2), ('b', 1)] [1, 2] 3"},
      {"{{ [1, 2, 3] | batch(2) | list }} {{ 'abc' | reverse }} {{ [1, 5] | max }}",
       "[[1, 2], [3]] cba 5"},
      {"{{ 'a,b,c'.split(',', 1) }} {{ ' a  b '.split() }} {{ 'aXb'.replace('X', '-') }}",
       "['a', 'b,c'] ['a', 'b'] a-b"},
      {"{{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.find('c') }} {{ 'a'.join(['1', '2']) }}",
       "True 2 1a2"},
      {"{{ none | selectattr('a') | list }}{{ none | map('upper') | list }}", "[][]"},
      {"{{ missing in {'a': 1} }} {{ 'ﬁ'.casefold() }}", "False fi"},
      {"{{ none[1:] }}", "ERROR template line 1: value error: 'NoneType' object cannot be sliced"},
      {"{{ strftime_now('%d %b %Y %-d%%') }}", "09 Mar 2025 9%"},
      {"{{ '<a>' | e }} {{ ('<b>' | safe) + '<' }}", "&lt;a&gt; <b>&lt;"},
  };
  for (const Case& c : cases) EXPECT_EQ(Render(c.source), c.expected) << c.source;
}

TEST(Template, ErrorsNameLineAndKind) {
  EXPECT_THAT(Render("a\n\n{{ raise_exception('no ' ~ 1) }}"), HasSubstr("line 3: raised: no 1"));
  EXPECT_THAT(Render("\n{% if %}"), HasSubstr("line 2: syntax error"));
  EXPECT_THAT(Render("{% for x in y %}"), HasSubstr("syntax error"));
  EXPECT_THAT(Render("{% include 'x' %}"), HasSubstr("forbidden error"));
  EXPECT_THAT(Render("{{ [1].append(2) }}"), HasSubstr("forbidden error"));
  EXPECT_THAT(Render("{{ ''['__class__'] }}"), HasSubstr("forbidden error"));
  EXPECT_THAT(Render("{{ '' | attr('__class__') }}"), HasSubstr("forbidden error"));
  EXPECT_THAT(Render("{{ '{0.__class__}'.format(1) }}"), HasSubstr("forbidden error"));
  EXPECT_THAT(Render("{{ 1 | nofilter }}"), HasSubstr("no filter named 'nofilter'"));
  EXPECT_THAT(Render("{{ 'a' * 3 - 1 }}"), HasSubstr("value error"));
  EXPECT_THAT(Render("{{ 1 // 0 }}"), HasSubstr("division by zero"));
}

TEST(Template, EveryCostIsBounded) {
  const auto repeated = [](std::string_view s, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += s;
    return out;
  };
  const std::string sources[] = {
      "{{ " + repeated("-", 5000) + "1 }}",
      "{{ " + repeated("not ", 5000) + "1 }}",
      "{{ a" + repeated(".b", 5000) + " }}",
      "{{ 1" + repeated("|abs", 5000) + " }}",
      "{{ " + repeated("[", 5000) + repeated("]", 5000) + " }}",
      "{{ 1" + repeated(" if 1", 5000) + " }}",
      "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}",
      "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
      "{% set ns = namespace(x='ab') %}{% for i in range(30) %}{% set ns.x = ns.x + ns.x %}"
      "{% endfor %}",
      "{% set x = range(99999) | list %}{% for i in range(999) %}{% for j in x %}{% endfor %}"
      "{% endfor %}",
      "{{ 'a'.ljust(2000000000) }}",
      "{{ '%2000000000d' % 1 }}",
      "{{ '{:2000000000}'.format(1) }}",
      "{{ [0] * 9999999999 }}",
      "{{ range(9999999999) }}",
      "{{ 9 ** 99 }}",
      "{{ 9223372036854775807 + 1 }}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
      "{% endfor %}{{ ns.x }}",
      "{% for a in range(99) %}{% for b in range(99) %}{% macro m() %}{% endmacro %}{% for c in "
      "range(99) %}{% macro n() %}{% endmacro %}{% endfor %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(s='x' * 9000000) %}{% for i in range(99999) %}{% set y = ns.s.upper() "
      "%}{% endfor %}",
      "{% macro f() %}{% call f() %}{{ f() }}{% endcall %}{% endmacro %}{{ f() }}",
      "{{ ('x' * 10000000) | list }}",
      "{{ ('x' * 10000000).split('x') }}",
      repeated("x", 300 * 1024),
  };
  for (const std::string& source : sources) {
    EXPECT_THAT(Render(source), HasSubstr("limit error")) << source.substr(0, 120);
  }
  // Long but flat expressions are fine.
  EXPECT_EQ(Render("{{ 0" + repeated("+1", 5000) + " }}"), "5000");
  EXPECT_EQ(Render("{{ ''" + repeated("~'a'", 5000) + " }}").size(), 5000u);
  EXPECT_EQ(Render("{{ true" + repeated(" and true", 5000) + " }}"), "True");
}

TEST(Template, CyclesAreFreed) {
  // The sanitizers' leak check is the judge.
  EXPECT_EQ(Render("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = [b] %}"
                   "{% for i in [1] %}{% set a.l = loop %}{% set x = loop.changed(loop, a) %}"
                   "{% set a.f = loop.changed %}{% macro m() %}{{ i }}{% endmacro %}"
                   "{% set a.m = m %}{% endfor %}{{ a.m() }}{{ a.f(a) }}"),
            "1True");
}

TEST(ParseJsonValue, RefusesWhatIsNotExactlyJson) {
  const Case cases[] = {
      {"{\"a\": 1, \"a\": 2}", "duplicate key 'a'"},
      {"{\"a\": {\"b\": [", "ends before the array is closed"},
      {"{'a': 1}", "single quotes"},
      {"{\"a\": 1} x", "something follows"},
      {"\"\\ud800\"", "lone surrogate"},
      {"\"\\udc00\\ud800\"", "lone surrogate"},
      {"\"a\tb\"", "control character"},
      {"\"\xff\"", "UTF-8"},
      {"18446744073709551615", "64 bits"},
      {"", "empty"},
  };
  for (const Case& c : cases) {
    const Result<Value> v = ParseJsonValue(c.source);
    ASSERT_FALSE(v.ok()) << c.source;
    EXPECT_THAT(v.status().message(), HasSubstr(c.expected)) << c.source;
  }
  EXPECT_EQ(ParseJsonValue("\"\\ud83d\\ude00 \\\\ud800\"")->str(), "\xF0\x9F\x98\x80 \\ud800");
  EXPECT_FALSE(ParseJsonValue(std::string(100, '[') + std::string(100, ']')).ok());
}

}  // namespace
}  // namespace edgewise::text::jinja
