// SPDX-License-Identifier: Apache-2.0

package top

import (
	"image/color"

	"charm.land/lipgloss/v2"
)

// theme gives tones their looks.
type theme struct {
	colour bool
	styles [focusTone + 1]lipgloss.Style
}

// newTheme is readable before the terminal told its background: it uses only colours that the user's own
// palette defines, and never black or white.
func newTheme(colour bool) theme {
	return theme{colour: colour}.with(lipgloss.Green, lipgloss.Magenta, lipgloss.Red, lipgloss.Blue)
}

// on suits the background: dark colours on light, light ones on dark.
func (t theme) on(dark bool) theme {
	pick := lipgloss.LightDark(dark)
	return t.with(
		pick(lipgloss.Color("#1a7f37"), lipgloss.Color("#3fb950")),
		pick(lipgloss.Color("#8a5a00"), lipgloss.Color("#d29922")),
		pick(lipgloss.Color("#cf222e"), lipgloss.Color("#ff7b72")),
		pick(lipgloss.Color("#0550ae"), lipgloss.Color("#79c0ff")),
	)
}

// with sets the colours; without colour, tones still differ in weight where that helps.
func (t theme) with(good, warn, bad, focus color.Color) theme {
	plain := lipgloss.NewStyle()
	t.styles = [...]lipgloss.Style{
		plainTone: plain, dimTone: plain.Faint(true), headTone: plain.Bold(true),
		goodTone: plain, warnTone: plain.Bold(true), badTone: plain.Bold(true), focusTone: plain.Bold(true),
	}
	if t.colour {
		t.styles[goodTone] = plain.Foreground(good)
		t.styles[warnTone] = plain.Foreground(warn)
		t.styles[badTone] = plain.Foreground(bad)
		t.styles[focusTone] = plain.Foreground(focus).Bold(true)
	}
	return t
}

// paint is a painter.
func (t theme) paint(tone tone, s string) string {
	if s == "" {
		return ""
	}
	return t.styles[tone].Inline(true).Render(s)
}
