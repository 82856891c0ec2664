// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage"

	"github.com/sluice-project/sluice/internal/batch"
	"github.com/sluice-project/sluice/internal/signal"
)

// remoteWrite serves /api/v1/write. What cannot be kept is refused with status 400, which tells the sender
// not to try again; the rest of the batch is kept. 5xx tells it to try again.
func (h *Handler) remoteWrite() http.Handler {
	protocol := remote.NewWriteHandler(receiver{h}, remote.MessageTypes{remote.WriteV1MessageType, remote.WriteV2MessageType})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, fmt.Sprintf("method %s, want POST", r.Method), http.StatusMethodNotAllowed)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), writeTime)
		defer cancel()
		if err := h.writes.enter(ctx); err != nil {
			w.Header().Set("Retry-After", "1")
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		defer h.writes.leave()
		r.Body = http.MaxBytesReader(w, r.Body, mostBody)
		protocol.ServeHTTP(w, r.WithContext(ctx))
	})
}

// receiver keeps the batches of remote write.
type receiver struct{ h *Handler }

// Store is called with the message, decompressed.
func (x receiver) Store(r *http.Request, kind remote.WriteMessageType) (*remote.WriteResponse, error) {
	answer := remote.NewWriteResponse()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		answer.SetStatusCode(http.StatusBadRequest)
		return answer, err
	}
	a := x.h.signals.Append(r.Context(), signal.SourcePush)
	w := &writer{a: a, signals: x.h.signals, builder: labels.NewScratchBuilder(16)}
	if err = batch.Check(body, mostParts); err != nil {
		err = fmt.Errorf("%w: %w", errMessage, err)
	} else if kind == remote.WriteV1MessageType {
		err = w.first(body)
	} else {
		err = w.second(body)
	}
	if err == nil {
		err = a.Commit()
	} else if rerr := a.Rollback(); rerr != nil {
		err = errors.Join(err, rerr)
	}
	switch {
	case errors.Is(err, errMessage):
		answer.SetStatusCode(http.StatusBadRequest)
		return answer, err
	case signal.KindOf(err) == signal.KindUnreachable:
		answer.SetStatusCode(http.StatusNotFound) // for good
		return answer, err
	case err != nil:
		answer.SetStatusCode(http.StatusServiceUnavailable)
		return answer, err
	}
	answer.Samples, answer.Histograms = w.samples, w.histograms
	if err := a.Refused().Err(); err != nil || w.broken > 0 {
		answer.SetStatusCode(http.StatusBadRequest)
		return answer, w.refusal(err)
	}
	return answer, nil
}

// errMessage is a message that is not what its header says.
var errMessage = errors.New("the message cannot be read")

// writer appends the samples of a message.
type writer struct {
	a       *signal.Appender
	signals *signal.Service
	builder labels.ScratchBuilder

	samples, histograms int // kept
	broken              int // series that could not be read
	firstBroken         error
}

func (w *writer) refusal(refused error) error {
	if w.broken == 0 {
		return refused
	}
	return errors.Join(fmt.Errorf("%d series could not be read and the others were kept; the first: %w", w.broken, w.firstBroken), refused)
}

// add appends one sample of a series, and counts it.
func (w *writer) add(ls labels.Labels, at int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AOptions) error {
	before := w.a.Count()
	_, err := w.a.Append(0, ls, 0, at, v, h, fh, o)
	kept := w.a.Count() - before
	if h != nil || fh != nil {
		w.histograms += kept
	} else {
		w.samples += kept
	}
	return err
}

// first reads a message of version 1.0.
func (w *writer) first(body []byte) error {
	var m prompb.WriteRequest
	if err := m.Unmarshal(body); err != nil {
		return fmt.Errorf("%w: it is no prometheus.WriteRequest: %w", errMessage, err)
	}
	for _, d := range m.Metadata {
		w.signals.Note(d.MetricFamilyName, metadata.Metadata{Type: firstTypes[d.Type], Help: d.Help, Unit: d.Unit})
	}
	for _, s := range m.Timeseries {
		ls := s.ToLabels(&w.builder, nil)
		for _, v := range s.Samples {
			if err := w.add(ls, v.Timestamp, v.Value, nil, nil, storage.AOptions{}); err != nil {
				return err
			}
		}
		for _, v := range s.Histograms {
			var err error
			if v.IsFloatHistogram() {
				err = w.add(ls, v.Timestamp, 0, nil, v.ToFloatHistogram(), storage.AOptions{})
			} else {
				err = w.add(ls, v.Timestamp, 0, v.ToIntHistogram(), nil, storage.AOptions{})
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

var firstTypes = map[prompb.MetricMetadata_MetricType]model.MetricType{
	prompb.MetricMetadata_COUNTER:        model.MetricTypeCounter,
	prompb.MetricMetadata_GAUGE:          model.MetricTypeGauge,
	prompb.MetricMetadata_HISTOGRAM:      model.MetricTypeHistogram,
	prompb.MetricMetadata_GAUGEHISTOGRAM: model.MetricTypeGaugeHistogram,
	prompb.MetricMetadata_SUMMARY:        model.MetricTypeSummary,
	prompb.MetricMetadata_INFO:           model.MetricTypeInfo,
	prompb.MetricMetadata_STATESET:       model.MetricTypeStateset,
}

// second reads a message of version 2.0.
func (w *writer) second(body []byte) error {
	var m writev2.Request
	if err := m.Unmarshal(body); err != nil {
		return fmt.Errorf("%w: it is no io.prometheus.write.v2.Request: %w", errMessage, err)
	}
	for _, s := range m.Timeseries {
		ls, err := s.ToLabels(&w.builder, m.Symbols)
		o := storage.AOptions{}
		if err == nil {
			o.Metadata, err = s.ToMetadata(m.Symbols)
		}
		if err != nil {
			if w.broken++; w.firstBroken == nil {
				w.firstBroken = err
			}
			continue
		}
		for _, v := range s.Samples {
			if err := w.add(ls, v.Timestamp, v.Value, nil, nil, o); err != nil {
				return err
			}
		}
		for _, v := range s.Histograms {
			if v.IsFloatHistogram() {
				err = w.add(ls, v.Timestamp, 0, nil, v.ToFloatHistogram(), o)
			} else {
				err = w.add(ls, v.Timestamp, 0, v.ToIntHistogram(), nil, o)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
