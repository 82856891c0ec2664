// SPDX-License-Identifier: Apache-2.0

// Package docs runs what the pages for people say: their commands, in order, against the real binary.
//
// A comment in front of a block says what the block is; each sh block of these pages needs one:
//
//	<!-- run -->               run it; it must end with exit code 0
//	<!-- run exit=3 -->        run it; it must end with exit code 3
//	<!-- run repository -->    run it in the repository instead of the empty directory of the page
//	<!-- start -->             run it until a stop, as in a terminal of its own
//	<!-- start HOST:PORT -->   the same in the repository, and wait until that port is open
//	<!-- serve ARGS -->        run "sluice serve ARGS" until a stop; needs no block
//	<!-- not run: REASON -->   leave it alone
//	<!-- file NAME -->         write the block to a file
//	<!-- stop -->              interrupt what was started last, and wait for it; needs no block
//
// A text block right after a block that is run is what it must print, errors included. A … in it
// stands for anything, also for several lines, and runs of white space are one space. Pages name the
// server 127.0.0.1:8080 and an example 127.0.0.1:9090; both run on free ports.
package docs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// step is one thing to do.
type step struct {
	line    int    // of the block in the page
	verb    string // run, start, serve, file, stop, not
	args    string
	body    string
	want    string // output, with …
	checked bool   // want was given
}

var verbs = []string{"run", "start", "serve", "file", "stop", "not"}

var (
	directive = regexp.MustCompile(`^<!-- ([a-z]+):? ?(.*?) ?-->$`)
	fence     = regexp.MustCompile("^```([a-z]*)$")
)

// parse reads the steps of a page. Its errors name the line.
func parse(text string) ([]step, error) {
	lines := strings.Split(text, "\n")
	var steps []step
	var pending *step // a directive whose block has not come
	answers := false  // only prose-free lines since the last block that ran
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if m := directive.FindStringSubmatch(line); m != nil && slices.Contains(verbs, m[1]) {
			s := step{line: i + 1, verb: m[1], args: m[2]}
			if answers = false; s.verb == "stop" || s.verb == "serve" {
				steps = append(steps, s)
			} else {
				pending = &s
			}
			continue
		}
		m := fence.FindStringSubmatch(line)
		if m == nil {
			answers = answers && line == ""
			continue
		}
		end := i + 1
		for end < len(lines) && strings.TrimSpace(lines[end]) != "```" {
			end++
		}
		if end == len(lines) {
			return nil, fmt.Errorf("line %d: this block has no end", i+1)
		}
		body := strings.Join(lines[i+1:end], "\n") + "\n"
		switch {
		case pending != nil:
			pending.line, pending.body = i+1, body
			steps = append(steps, *pending)
			answers = pending.verb == "run"
			pending = nil
		case m[1] == "sh":
			return nil, fmt.Errorf("line %d: got a sh block without a comment before it, want <!-- run --> or another one that says what it is", i+1)
		case m[1] == "text" && answers:
			steps[len(steps)-1].want, steps[len(steps)-1].checked = body, true
			answers = false
		default:
			answers = false
		}
		i = end
	}
	if pending != nil {
		return nil, fmt.Errorf("line %d: got a comment without a block after it", pending.line)
	}
	return steps, nil
}

// matches compares loosely: … stands for anything, white space is one space.
func matches(want, got string) bool {
	var parts []string
	for part := range strings.SplitSeq(squeeze(want), "…") {
		parts = append(parts, regexp.QuoteMeta(strings.TrimSpace(part)))
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*") + `$`).MatchString(squeeze(got))
}

// squeeze also takes the space after a comma in JSON away: protojson writes it in some builds only.
func squeeze(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), `, "`, `,"`)
}
