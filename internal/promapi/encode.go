// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"bufio"
	"encoding/json"
	"math"
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// reply is a successful answer.
type reply struct {
	// data writes the value of the field data.
	data func(*encoder)
	// warnings and infos are remarks on the query.
	warnings, infos []string
	// release is called when the reply has been written. nil: nothing to do.
	release func()
}

func (r reply) close() {
	if r.release != nil {
		r.release()
	}
}

// writeReply writes an answer piece by piece: it can be large.
func writeReply(w http.ResponseWriter, r reply) {
	w.Header().Set("Content-Type", "application/json")
	e := &encoder{w: bufio.NewWriterSize(w, 64<<10)}
	e.raw(`{"status":"success","data":`)
	r.data(e)
	for name, list := range map[string][]string{"warnings": r.warnings, "infos": r.infos} {
		if len(list) > 0 {
			e.raw(`,"` + name + `":`)
			e.json(list)
		}
	}
	e.raw("}")
	_ = e.w.Flush() // who went away before the end of the answer does not want it
}

// encoder writes JSON the way Prometheus does: times as seconds, values as text, so that NaN and infinities
// are possible.
type encoder struct {
	w       *bufio.Writer
	scratch []byte
}

func (e *encoder) raw(s string) { _, _ = e.w.WriteString(s) }

// json writes anything that cannot fail.
func (e *encoder) json(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		b = []byte("null")
	}
	_, _ = e.w.Write(b)
}

// list writes the elements of a list.
func list[T any](e *encoder, all []T, one func(T)) {
	e.raw("[")
	for i, v := range all {
		if i > 0 {
			e.raw(",")
		}
		one(v)
	}
	e.raw("]")
}

func (e *encoder) time(ms int64) {
	b := e.scratch[:0]
	if ms < 0 {
		b = append(b, '-')
		ms = -ms
	}
	b = strconv.AppendInt(b, ms/1000, 10)
	if f := ms % 1000; f != 0 {
		b = append(b, '.', byte('0'+f/100), byte('0'+f/10%10), byte('0'+f%10))
	}
	e.scratch = b
	_, _ = e.w.Write(b)
}

func (e *encoder) number(f float64) {
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	b := append(e.scratch[:0], '"')
	b = strconv.AppendFloat(b, f, format, -1, 64)
	e.scratch = append(b, '"')
	_, _ = e.w.Write(e.scratch)
}

func (e *encoder) float(p promql.FPoint) {
	e.raw("[")
	e.time(p.T)
	e.raw(",")
	e.number(p.F)
	e.raw("]")
}

func (e *encoder) histogram(p promql.HPoint) {
	e.raw("[")
	e.time(p.T)
	e.raw(`,{"count":`)
	e.number(p.H.Count)
	e.raw(`,"sum":`)
	e.number(p.H.Sum)
	first := true
	for it := p.H.AllBucketIterator(); it.Next(); {
		b := it.At()
		if b.Count == 0 {
			continue
		}
		if first {
			e.raw(`,"buckets":[[`)
		} else {
			e.raw(`,[`)
		}
		first = false
		e.bucket(b)
		e.raw("]")
	}
	if !first {
		e.raw("]")
	}
	e.raw("}]")
}

// bucket writes which bounds belong to a bucket, the bounds and the count.
func (e *encoder) bucket(b histogram.Bucket[float64]) {
	switch {
	case b.LowerInclusive && b.UpperInclusive:
		e.raw("3,")
	case b.LowerInclusive:
		e.raw("1,")
	case b.UpperInclusive:
		e.raw("0,")
	default:
		e.raw("2,")
	}
	e.number(b.Lower)
	e.raw(",")
	e.number(b.Upper)
	e.raw(",")
	e.number(b.Count)
}

func (e *encoder) labels(ls labels.Labels) {
	e.raw("{")
	first := true
	ls.Range(func(l labels.Label) {
		if !first {
			e.raw(",")
		}
		first = false
		e.json(l.Name)
		e.raw(":")
		e.json(l.Value)
	})
	e.raw("}")
}

// value writes the result of a query.
func (e *encoder) value(v parser.Value) {
	e.raw(`{"resultType":"` + string(v.Type()) + `","result":`)
	switch v := v.(type) {
	case promql.Scalar:
		e.float(promql.FPoint{T: v.T, F: v.V})
	case promql.String:
		e.raw("[")
		e.time(v.T)
		e.raw(",")
		e.json(v.V)
		e.raw("]")
	case promql.Vector:
		list(e, v, e.sample)
	case promql.Matrix:
		list(e, v, e.series)
	}
	e.raw("}")
}

func (e *encoder) sample(s promql.Sample) {
	e.raw(`{"metric":`)
	e.labels(s.Metric)
	if s.H != nil {
		e.raw(`,"histogram":`)
		e.histogram(promql.HPoint{T: s.T, H: s.H})
	} else {
		e.raw(`,"value":`)
		e.float(promql.FPoint{T: s.T, F: s.F})
	}
	e.raw("}")
}

func (e *encoder) series(s promql.Series) {
	e.raw(`{"metric":`)
	e.labels(s.Metric)
	if len(s.Floats) > 0 {
		e.raw(`,"values":`)
		list(e, s.Floats, e.float)
	}
	if len(s.Histograms) > 0 {
		e.raw(`,"histograms":`)
		list(e, s.Histograms, e.histogram)
	}
	e.raw("}")
}
