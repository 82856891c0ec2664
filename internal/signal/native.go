// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"math"
	"strconv"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/histogram"
)

// isNative reports whether a histogram has buckets of the exponential kind.
func isNative(h *dto.Histogram) bool {
	return h.Schema != nil && (h.ZeroThreshold != nil || len(h.GetPositiveSpan()) > 0 || len(h.GetNegativeSpan()) > 0)
}

// putNative appends a native histogram; for a new one, an empty one before it.
func (c *collector) putNative(s *series, now int64, found *dto.Histogram, gauge bool) {
	h, fh := native(found, gauge)
	if !s.begun {
		switch before := c.before(now); {
		case !s.counts || found.GetSampleCount() == 0 && found.GetSampleCountFloat() <= 0:
		case h != nil:
			c.append(s, before, 0, &histogram.Histogram{Schema: h.Schema, ZeroThreshold: h.ZeroThreshold}, nil)
		default:
			c.append(s, before, 0, nil, &histogram.FloatHistogram{Schema: fh.Schema, ZeroThreshold: fh.ZeroThreshold})
		}
		s.begun = true
	}
	c.append(s, now, 0, h, fh)
}

// native turns a histogram into the form of the database: of whole numbers, or of fractions.
func native(d *dto.Histogram, gauge bool) (*histogram.Histogram, *histogram.FloatHistogram) {
	hint := histogram.UnknownCounterReset
	if gauge {
		hint = histogram.GaugeType
	}
	if d.GetSampleCountFloat() > 0 || len(d.GetPositiveCount()) > 0 || len(d.GetNegativeCount()) > 0 {
		h := &histogram.FloatHistogram{
			CounterResetHint: hint, Schema: d.GetSchema(), ZeroThreshold: d.GetZeroThreshold(),
			ZeroCount: d.GetZeroCountFloat(), Count: d.GetSampleCountFloat(), Sum: d.GetSampleSum(),
			PositiveSpans: spans(d.GetPositiveSpan()), NegativeSpans: spans(d.GetNegativeSpan()),
			PositiveBuckets: d.GetPositiveCount(), NegativeBuckets: d.GetNegativeCount(),
		}
		return nil, h.Compact(0)
	}
	h := &histogram.Histogram{
		CounterResetHint: hint, Schema: d.GetSchema(), ZeroThreshold: d.GetZeroThreshold(),
		ZeroCount: d.GetZeroCount(), Count: d.GetSampleCount(), Sum: d.GetSampleSum(),
		PositiveSpans: spans(d.GetPositiveSpan()), NegativeSpans: spans(d.GetNegativeSpan()),
		PositiveBuckets: d.GetPositiveDelta(), NegativeBuckets: d.GetNegativeDelta(),
	}
	return h.Compact(0), nil
}

func spans(list []*dto.BucketSpan) []histogram.Span {
	s := make([]histogram.Span, len(list))
	for i, b := range list {
		s[i] = histogram.Span{Offset: b.GetOffset(), Length: b.GetLength()}
	}
	return s
}

// formatBound is how the values of le and quantile are written.
func formatBound(f float64) string {
	if math.IsInf(f, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}
