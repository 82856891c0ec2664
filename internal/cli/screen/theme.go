// SPDX-License-Identifier: Apache-2.0

package screen

import (
	"image/color"

	"charm.land/lipgloss/v2"
)

// Tone is what a text means; a Theme gives it its looks.
type Tone uint8

// The tones.
const (
	Plain Tone = iota
	Dim
	Good
	Warn
	Bad
	Head
	Focus
)

// Theme gives tones their looks. The zero Theme is of no use; see NewTheme.
type Theme struct {
	colour bool
	styles [Focus + 1]lipgloss.Style
}

// NewTheme is readable before the terminal told its background: it uses only colours that the user's own
// palette defines, and never black or white.
func NewTheme(colour bool) Theme {
	return Theme{colour: colour}.with(lipgloss.Green, lipgloss.Magenta, lipgloss.Red, lipgloss.Blue)
}

// On suits the background: dark colours on light, light ones on dark.
func (t Theme) On(dark bool) Theme {
	pick := lipgloss.LightDark(dark)
	return t.with(
		pick(lipgloss.Color("#1a7f37"), lipgloss.Color("#3fb950")),
		pick(lipgloss.Color("#8a5a00"), lipgloss.Color("#d29922")),
		pick(lipgloss.Color("#cf222e"), lipgloss.Color("#ff7b72")),
		pick(lipgloss.Color("#0550ae"), lipgloss.Color("#79c0ff")),
	)
}

// with sets the colours; without colour, tones still differ in weight where that helps.
func (t Theme) with(good, warn, bad, focus color.Color) Theme {
	plain := lipgloss.NewStyle()
	t.styles = [...]lipgloss.Style{
		Plain: plain, Dim: plain.Faint(true), Head: plain.Bold(true),
		Good: plain, Warn: plain.Bold(true), Bad: plain.Bold(true), Focus: plain.Bold(true),
	}
	if t.colour {
		t.styles[Good] = plain.Foreground(good)
		t.styles[Warn] = plain.Foreground(warn)
		t.styles[Bad] = plain.Foreground(bad)
		t.styles[Focus] = plain.Foreground(focus).Bold(true)
	}
	return t
}

// Paint colours a text by its tone. It does not change its width.
func (t Theme) Paint(tone Tone, s string) string {
	if s == "" {
		return ""
	}
	return t.styles[tone].Inline(true).Render(s)
}
