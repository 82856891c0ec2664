// SPDX-License-Identifier: Apache-2.0

package top

import (
	"math"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"charm.land/lipgloss/v2"

	"github.com/sluice-project/sluice/internal/cli/screen"
)

func TestFormatNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", 0.5: "0.5", 12.34: "12.3", 99.94: "99.9", 99.96: "100", 123.4: "123", 9999: "9999", 9999.4: "9999",
		9999.6: "10.0k", 10_000: "10.0k", 99_949: "99.9k", 123_456: "123k", 999_499: "999k", 999_501: "1.0M",
		1.5e9: "1.5G", 2.5e12: "2.5T", 999.4e12: "999T", 1e15: "1e+15", 1e308: "1e+308",
		-1: "-1", -0.5: "-0.5", -12_345: "-12.3k", math.Inf(1): "∞", math.Inf(-1): "-∞",
	} {
		if got := screen.Number(v); got != want {
			t.Errorf("%g: got %q, want %q", v, got, want)
		}
	}
	if got := screen.Number(math.NaN()); got != screen.Unknown {
		t.Errorf("NaN: got %q, want %q", got, screen.Unknown)
	}
}

func TestFormatRate(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.01: "<0.1", 0.06: "0.1", 3: "3.0", 12.34: "12.3", 99.96: "100", 1234.5: "1234", 54_321: "54.3k",
	} {
		if got := formatRate(reading{v, true}); got != want {
			t.Errorf("%g: got %q, want %q", v, got, want)
		}
	}
	if got := formatRate(reading{}); got != screen.Unknown {
		t.Errorf("screen.Unknown: got %q, want %q", got, screen.Unknown)
	}
}

func TestFormatSeconds(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0004: "0.4ms", 0.0099: "9.9ms", 0.00999: "10ms", 0.5: "500ms", 0.9996: "1.00s", 1.239: "1.24s",
		59.99: "59.99s", 59.999: "1m00s", 185: "3m05s", 3599.9: "1h00m", 7320: "2h02m", 1e9: "∞", math.Inf(1): "∞",
		-1: screen.Unknown,
	} {
		if got := formatSeconds(reading{v, true}); got != want {
			t.Errorf("%g: got %q, want %q", v, got, want)
		}
	}
	for _, r := range []reading{{}, {math.NaN(), true}} {
		if got := formatSeconds(r); got != screen.Unknown {
			t.Errorf("%v: got %q, want %q", r, got, screen.Unknown)
		}
	}
}

func TestFormatShare(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0%", 0.001: "<1%", 0.5: "50%", 0.9999: "99%", 1: "100%", 2.5: "250%", 100: ">999%", -1: "0%", math.Inf(1): ">999%",
	} {
		if got := formatShare(reading{v, true}); got != want {
			t.Errorf("%g: got %q, want %q", v, got, want)
		}
	}
}

func TestBar(t *testing.T) {
	for _, test := range []struct {
		ratio float64
		width int
		want  string
	}{
		{0, 4, "|░░░░"},
		{0.5, 4, "██|░░"},
		{1, 4, "████|"},
		{7, 4, "████|"},
		{-1, 4, "|░░░░"},
		{0.0001, 4, "▏|░░░"},
		{0.625, 4, "██▌|░"},
		{math.NaN(), 4, "|░░░░"},
		{math.Inf(1), 2, "██|"},
		{0.5, 0, "|"},
		{1, -3, "|"},
	} {
		filled, rest := bar(test.ratio, test.width)
		if got := filled + "|" + rest; got != test.want {
			t.Errorf("%g in %d cells: got %q, want %q", test.ratio, test.width, got, test.want)
		}
	}
}

func TestShorten(t *testing.T) {
	for _, test := range []struct {
		s     string
		width int
		want  string
	}{
		{"abc", 3, "abc"},
		{"abcd", 3, "ab…"},
		{"abcd", 1, "…"},
		{"abcd", 0, ""},
		{"abcd", -1, ""},
		{"", 0, ""},
		{"世界世界", 8, "世界世界"},
		{"世界世界", 5, "世界…"},
		{"世界世界", 4, "世…"},
	} {
		if got := screen.Shorten(test.s, test.width); got != test.want {
			t.Errorf("%q in %d cells: got %q, want %q", test.s, test.width, got, test.want)
		}
	}
}

// FuzzName puts hostile names through all that happens to a name: nothing that a terminal would act on
// is left, and no cell too much.
func FuzzName(f *testing.F) {
	for _, s := range []string{
		"", "user_id:alice", "\x1b[2J", "a\nb", "世界", "e\u0301\u0301\u0301", "👩‍👩‍👧", "\u202eabc", "\xff\xfe",
		strings.Repeat("x", 70_000), "\u009b31m", "🇩🇪🇩🇪🇩", "\u200b\u200b", "\u0600", "\ufe0f",
	} {
		f.Add(s, 10)
	}
	f.Fuzz(func(t *testing.T, s string, width int) {
		width %= 300
		cleaned := screen.Clean(s)
		if n := utf8.RuneCountInString(cleaned); n > screen.LongestName+1 {
			t.Errorf("%d runes, want at most %d", n, screen.LongestName+1)
		}
		short := screen.Shorten(cleaned, width)
		if w := lipgloss.Width(short); w > max(0, width) {
			t.Errorf("%q is %d cells wide, want at most %d", short, w, width)
		}
		if i := strings.IndexFunc(short, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q keeps a rune that is not printable, at %d", short, i)
		}
		if filled := screen.Pad(short, width, false); width >= 0 && lipgloss.Width(filled) != width {
			t.Errorf("%q is %d cells wide, want %d", filled, lipgloss.Width(filled), width)
		}
	})
}
