// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// maxDuration bounds every duration of a document. Longer ones are mistakes of units, and sums of shorter
// ones cannot overflow.
const maxDuration = 10 * 366 * 24 * time.Hour

// Duration is a length of time from 0 to about 10 years. Documents write it with units: "1.5s", "300ms",
// "1m30s", "2h".
type Duration time.Duration

var (
	_ strict.Scalar  = (*Duration)(nil)
	_ strict.Wanted  = (*Duration)(nil)
	_ json.Marshaler = Duration(0)
)

// Std is the duration as package time has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes the duration in seconds, as protobuf's JSON does: "90s", "0.01s".
func (d Duration) String() string {
	seconds, nanos := int64(d)/int64(time.Second), int64(d)%int64(time.Second)
	if nanos == 0 {
		return strconv.FormatInt(seconds, 10) + "s"
	}
	return strings.TrimRight(fmt.Sprintf("%d.%09d", seconds, nanos), "0") + "s"
}

// MarshalJSON writes String as JSON text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// Want says what a document should hold.
func (*Duration) Want() string { return `a duration such as "30s" or "1m30s"` }

// DecodeScalar reads text with units.
func (d *Duration) DecodeScalar(n *strict.Node) *fielderr.Error {
	problem := &fielderr.Error{Want: d.Want()}
	if n.Kind == strict.Number {
		if f, ok := n.Float(); ok && f >= 0 && f <= maxDuration.Seconds() {
			problem.Hint = fmt.Sprintf("did you mean %q?", Duration(f*float64(time.Second)).String())
		}
		return problem
	}
	if n.Kind != strict.Text {
		return problem
	}
	parsed, err := time.ParseDuration(n.Text)
	switch {
	case err != nil && isNumber(n.Text):
		problem.Hint = fmt.Sprintf("add the unit: %q", n.Text+"s")
		return problem
	case err != nil:
		return problem
	case parsed < 0 || parsed > maxDuration:
		return &fielderr.Error{Want: "a duration from 0 to 10 years"}
	}
	*d = Duration(parsed)
	return nil
}

func isNumber(text string) bool {
	f, err := strconv.ParseFloat(text, 64)
	return err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
}
