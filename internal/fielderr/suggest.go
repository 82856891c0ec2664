// SPDX-License-Identifier: Apache-2.0

package fielderr

import (
	"fmt"
	"strings"
)

// maxSuggest is the longest word Suggest looks at. Longer ones are not typing mistakes, and comparing them
// costs time that whoever sent the document would choose.
const maxSuggest = 64

// DidYouMean is the hint `did you mean "interval"?` for the candidate nearest to word, or "" when none is
// near.
func DidYouMean(word string, candidates []string) string {
	if near, ok := Suggest(word, candidates); ok {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}

// OneOf is DidYouMean or else, when the candidates are few, the hint "known here: a, b, c".
func OneOf(word string, candidates []string) string {
	if hint := DidYouMean(word, candidates); hint != "" || len(candidates) == 0 || len(candidates) > maxListed {
		return hint
	}
	return "known here: " + strings.Join(candidates, ", ")
}

// maxListed is how many candidates a message can name and stay readable.
const maxListed = 12

// Suggest finds the candidate a person most likely meant by word: the same letters but for case, '-' and
// '_', or else the fewest insertions, deletions, replacements and swaps of neighbours, at most one per
// three letters (and always one), or else the only candidate that begins with word. The first of equally near
// candidates wins. It costs
// O(len(word)·len(candidate)) for each candidate.
func Suggest(word string, candidates []string) (string, bool) {
	if word == "" || len(word) > maxSuggest {
		return "", false
	}
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if fold(c) == fold(word) {
			return c, true
		}
		if len(c) > maxSuggest {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < bestDistance && d < max(len(c), 2) {
			best, bestDistance = c, d
		}
	}
	if best == "" {
		best = completion(word, candidates)
	}
	return best, best != ""
}

// completion is the only candidate that begins with word, which has at least three letters.
func completion(word string, candidates []string) string {
	found := ""
	for _, c := range candidates {
		if len(word) < 3 || !strings.HasPrefix(c, word) {
			continue
		}
		if found != "" {
			return ""
		}
		found = c
	}
	return found
}

// fold writes limitByLabelKey, limit-by-label-key and limit_by_label_key alike.
func fold(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}

// distance is the optimal string alignment distance of two short words, by bytes.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
