#include <fmt/format.h>

#include "report/json_path.h"
#include "report/markup.h"
#include "report/run_report.h"
#include "report/sections.h"

namespace edgewise::report {
namespace {

// One rule for both themes; the colours alone differ. Series colours keep a contrast of at least
// 3:1 to their ground.
constexpr std::string_view kStyle = R"(
:root{color-scheme:light dark;--bg:#f6f4ef;--card:#fffefb;--ink:#1f2328;--muted:#5a6169;--line:#dedad0;
--grid:#ebe8df;--onfill:#ffffff;--good:#1f6b3f;--bad:#a3262f;
--c0:#1f5fa8;--c1:#b8500f;--c2:#2b7a4b;--c3:#7446ad;--c4:#b0303b;--c5:#0e7681;--c6:#8a6a00;--c7:#69717a;--c8:var(--ink)}
@media (prefers-color-scheme:dark){:root{--bg:#14171b;--card:#1c2126;--ink:#e7e5df;--muted:#a3abb3;--line:#333a41;
--grid:#2a3036;--onfill:#101418;--good:#7fd09b;--bad:#f2949b;
--c0:#77b0f5;--c1:#f29a5e;--c2:#76c995;--c3:#bb9cf0;--c4:#f08a92;--c5:#5fc9d2;--c6:#d9b94f;--c7:#a4adb6;--c8:var(--ink)}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans","DejaVu Sans",sans-serif;overflow-wrap:anywhere}
main{max-width:744px;margin:0 auto;padding:24px 20px 48px}
header h1{font-size:1.6rem;line-height:1.2;margin:0 0 4px}
header p{margin:0 0 20px;color:var(--muted)}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:20px;margin:0 0 16px}
h2{font-size:1.15rem;line-height:1.3;margin:0 0 4px}
h3{font-size:1rem;line-height:1.35;margin:0}
section>p{margin:0 0 12px;color:var(--muted)}
figure{margin:16px 0 0}figure:first-of-type{margin-top:8px}
figcaption p{margin:2px 0 0;color:var(--muted);font-size:.875rem}
svg{display:block;width:100%;height:auto;margin-top:8px}
.narrow{display:none}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(176px,1fr));gap:16px 20px;margin:8px 0 0;padding:0}
.tiles div{border-left:3px solid var(--c0);padding-left:10px}
.tiles dt{color:var(--muted);font-size:.8125rem}
.tiles dd{margin:0;font-size:1.25rem;line-height:1.3;font-variant-numeric:tabular-nums}
.tiles dd small{display:block;font-size:.8125rem;color:var(--muted)}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
th,td{text-align:left;vertical-align:top;padding:6px 12px 6px 0;border-bottom:1px solid var(--line)}
thead th{color:var(--muted);font-weight:500;font-size:.8125rem}
tbody th{font-weight:500}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
tr.this td,tr.this th{font-weight:600}
.facts th{width:34%;color:var(--muted)}
code,pre{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.8125rem;unicode-bidi:isolate}
pre{white-space:pre-wrap;margin:0;max-height:24rem;overflow:auto}
.sample{border-top:1px solid var(--line);padding:12px 0}
.sample:first-of-type{border-top:0}
.sample p{margin:0 0 8px;font-weight:500;white-space:pre-wrap;unicode-bidi:isolate}
.sample dl{display:grid;grid-template-columns:72px 1fr;gap:4px 12px;margin:0}
.sample dt{color:var(--muted);font-size:.875rem}
.sample dd{margin:0}
.right{color:var(--good)}.wrong{color:var(--bad)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;margin:8px 0 0;padding:0;font-size:.8125rem}
.legend li{display:flex;align-items:center;gap:7px}
.legend i{flex:none;width:18px;height:0;border-top:2.5px solid}
.legend i.dash{border-top-style:dashed}.legend i.pale{opacity:.35}
.legend i.box{width:12px;height:12px;border:0;border-radius:2px}
.legend i.dot{width:9px;height:9px;border:0;border-radius:50%}
details{margin-top:12px}summary{cursor:pointer;color:var(--muted);font-size:.875rem}
footer{color:var(--muted);font-size:.8125rem}
text{font-size:12px;font-family:inherit;fill:var(--ink);font-variant-numeric:tabular-nums}
text.muted{fill:var(--muted)}text.onfill{fill:var(--onfill)}
text.halo{paint-order:stroke;stroke:var(--card);stroke-width:3px}
.axis{stroke:var(--muted);stroke-width:1}.grid{stroke:var(--grid);stroke-width:1}
polyline{fill:none;stroke-linejoin:round;stroke-linecap:round}
.line{stroke-width:2}.thin{stroke-width:1.25}.faint{stroke-width:1;opacity:.35}
.dashed{stroke-width:1.75;stroke-dasharray:6 4}
.band{fill-opacity:.55;stroke:var(--card);stroke-width:.75}.block{stroke:var(--card);stroke-width:.75}
@media (max-width:600px){main{padding:16px 12px 32px}section{padding:14px 11px}.wide{display:none}.narrow{display:block}
.facts th{width:38%}.sample dl{grid-template-columns:1fr;gap:0}.sample dd{margin-bottom:6px}
table.scores thead{display:none}table.scores tr{display:block;padding:8px 0;border-bottom:1px solid var(--line)}
table.scores th,table.scores td{display:flex;justify-content:space-between;gap:12px;border:0;padding:2px 0;text-align:right}
table.scores td::before{content:attr(data-name);color:var(--muted);text-align:left;font-weight:400}
table.scores th{text-align:left;font-weight:600}}
@media print{body{background:none}section{break-inside:avoid}}
)";

std::string ColorRules() {
  std::string out;
  for (int i = 0; i <= kInkColor; ++i) {
    out += fmt::format(
        ".sc{0}{{stroke:var(--c{0})}}.fc{0}{{fill:var(--c{0})}}"
        ".legend .k{0}{{border-color:var(--c{0})}}"
        ".legend .box.k{0},.legend .dot.k{0}{{background:var(--c{0})}}\n",
        i);
  }
  return out;
}

}  // namespace

std::string RenderReport(const RunReport& report) {
  const std::string title = "edgewise: " + report.name;
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      // Nothing is loaded and nothing runs, whatever a sample holds.
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
      "style-src 'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
  out += Element("title", title) + "\n<style>" + std::string(kStyle) + ColorRules() +
         "</style>\n</head>\n<body>\n<main>\n";
  out += "<header>" + Element("h1", report.name);
  const std::string base = TextAt(report.run, {"base", "path"});
  const std::string method = TextAt(report.run, {"method"});
  const std::string status = TextAt(report.run, {"status"});
  out += Element("p", fmt::format("{}{}{}", base.empty() ? "a model" : BaseName(base),
                                  method.empty() ? "" : ", adapted with method " + method,
                                  status.empty() ? "" : " (" + status + ")")) +
         "</header>\n";
  for (const auto section :
       {SummarySection, SamplesSection, ComparisonSection, LossSection, ExitsSection, MemorySection,
        PredictionSection, SensitivitySection, PolicySection, ScheduleSection, ProvenanceSection}) {
    out += section(report);
  }
  out += Element("footer", "Made by edgewise " + TextAt(report.run, {"version"}) +
                               " on the device; this page loads nothing from anywhere.");
  return out + "\n</main>\n</body>\n</html>\n";
}

}  // namespace edgewise::report
