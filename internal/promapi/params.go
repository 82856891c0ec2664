// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// The ends of time, as Prometheus has them: what a duration can be subtracted from.
var (
	minTime = time.Unix(math.MinInt64/1000+62135596801, 0).UTC()
	maxTime = time.Unix(math.MaxInt64/1000-62135596801, 999999999).UTC()

	minTimeText = minTime.Format(time.RFC3339Nano)
	maxTimeText = maxTime.Format(time.RFC3339Nano)
)

// timeParam reads a time: seconds since 1970, or RFC 3339.
func timeParam(r *http.Request, name string, otherwise time.Time) (time.Time, error) {
	text := r.FormValue(name)
	if text == "" {
		return otherwise, nil
	}
	t, err := parseTime(text)
	if err != nil {
		return time.Time{}, badData(fmt.Sprintf("invalid parameter %q: Invalid time value for '%s': %v", name, name, err))
	}
	return t, nil
}

func parseTime(text string) (time.Time, error) {
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		if math.IsNaN(f) || f < float64(minTime.Unix()) || f > float64(maxTime.Unix()) {
			return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", text)
		}
		s, ns := math.Modf(f)
		return time.Unix(int64(s), int64(math.Round(ns*1000)/1000*float64(time.Second))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	switch text {
	case minTimeText:
		return minTime, nil
	case maxTimeText:
		return maxTime, nil
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", text)
}

// durationParam reads a duration: seconds, or 1m30s.
func durationParam(r *http.Request, name string, otherwise time.Duration) (time.Duration, error) {
	text := r.FormValue(name)
	if text == "" {
		return otherwise, nil
	}
	d, err := parseDuration(text)
	if err != nil {
		return 0, invalid(name, err)
	}
	if d <= 0 && name != "step" {
		return 0, invalid(name, errors.New("want more than 0"))
	}
	return d, nil
}

func parseDuration(text string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		ns := f * float64(time.Second)
		if math.IsNaN(ns) || ns > math.MaxInt64/2 || ns < -math.MaxInt64/2 {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", text)
		}
		return time.Duration(ns), nil
	}
	if d, err := model.ParseDuration(text); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", text)
}

// limitParam reads a count; 0: no limit.
func limitParam(r *http.Request, name string) (int, error) {
	text := r.FormValue(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, invalid(name, fmt.Errorf("got %q, want a whole number", text))
	}
	return n, nil
}

// matchersParam reads the selectors of match[].
func matchersParam(r *http.Request, p parser.Parser) ([][]*labels.Matcher, error) {
	var sets [][]*labels.Matcher
	for _, text := range r.Form["match[]"] {
		m, err := p.ParseMetricSelector(text)
		if err != nil {
			return nil, invalid("match[]", err)
		}
		narrow := false
		for _, one := range m {
			narrow = narrow || !one.Matches("")
		}
		if !narrow {
			return nil, invalid("match[]", errors.New("match[] must contain at least one non-empty matcher"))
		}
		sets = append(sets, m)
	}
	return sets, nil
}
