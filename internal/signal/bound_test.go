// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"strings"
	"testing"
)

// Deep queries would take minutes and gigabytes before any time-out looks at them.
func TestCheckQueryRefusesDeepQueries(t *testing.T) {
	const n = mostOperators + 1
	for name, query := range map[string]string{
		"parentheses":  strings.Repeat("(", n) + "1" + strings.Repeat(")", n),
		"minus signs":  strings.Repeat("-", n) + "x",
		"a long sum":   "x" + strings.Repeat("+x", n),
		"a long or":    "x" + strings.Repeat(" or x", n),
		"calls":        strings.Repeat("abs(", n) + "x" + strings.Repeat(")", n),
		"subqueries":   "x" + strings.Repeat("[1m:1s]", n),
		"not even one": strings.Repeat("(", n),
	} {
		if err := CheckQuery(query); err == nil || !strings.Contains(err.Error(), "more than") {
			t.Errorf("%s: error %.100v, want that there are too many", name, err)
		}
	}
}

// The engine takes the memory for these before it looks at its bounds.
func TestCheckQueryRefusesWhatTakesAllMemory(t *testing.T) {
	for query, want := range map[string]string{
		`max_over_time(count(x)[1y:1ms])`: "steps",
		`max_over_time(x[1y:])`:           "steps",
		`max_over_time(max_over_time(x[1ms:1ms])[1y:1m]) + max_over_time(x[2h:1ms])`:                                              "steps",
		`max_over_time(max_over_time(x[1s:1ms])[1d:1d])`:                                                                          "steps",
		`label_replace(label_replace(x, "a", "$1$1$1$1$1$1$1$1$1$1$1", "a", "(.*)"), "a", "$1$1$1$1$1$1$1$1$1$1$1", "a", "(.*)")`: "121 times as long",
		strings.Repeat("label_join(", 8) + "x" + strings.Repeat(`, "a", "", "a", "a")`, 8):                                        "times as long",
		`label_replace(x, "a", "` + strings.Repeat("b", 2000) + `", "", "")`:                                                      "bytes of text",
	} {
		if err := CheckQuery(query); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: error %v, want one with %q", query, err, want)
		}
	}
}

func TestCheckQueryAllowsLongQueries(t *testing.T) {
	for name, query := range map[string]string{
		"a long regular expression": `sum(rate(x{path=~"` + strings.Repeat("/a/path/of/mine|", 900) + `"}[5m]))`,
		"a sum of 500":              "x" + strings.Repeat(" + x", 500),
		"matchers":                  "x{" + strings.Repeat(`a!="b",`, 2_000) + "}",
		"calls":                     strings.Repeat("abs(", 99) + "x" + strings.Repeat(")", 99),
		"a subquery of a day":       `max_over_time(max_over_time(x[1h:1s])[7d:1m])`,
		"a default step":            `max_over_time(x[7d:])`,
		"labels":                    `label_join(label_replace(x, "a", "$1-$2", "b", "(.*)-(.*)"), "c", "-", "a", "b", "c")`,
		"groups":                    "sum by (" + strings.Repeat("a,", 2_000) + "b) (x)",
	} {
		if err := CheckQuery(query); err != nil {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}
