// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-project/sluice/internal/classify"
	"github.com/sluice-project/sluice/internal/flow"
	"github.com/sluice-project/sluice/internal/label"
)

// labelsOf makes labels of whatever a request has, as a classifier of a user may.
type labelsOf struct{ keys []string }

func (l labelsOf) Eval(in *classify.Input, out []classify.Label) ([]classify.Label, error) {
	for _, key := range l.keys {
		out = append(out, classify.Label{Key: key, Value: in.Request.Body, Telemetry: true})
		for _, value := range in.Request.Headers {
			out = append(out, classify.Label{Key: value, Value: value, Telemetry: true})
		}
	}
	return out, nil
}

// hostileDoor has a limiter for each user, and a classifier that copies everything into labels.
func hostileDoor(t testing.TB) *Door {
	spec := rateSpec(1, 3)
	spec.LimitBy = "x"
	e := newEngine(t)
	err := e.Publish(flow.Set{
		Limiters: []*flow.LimiterSpec{spec},
		Classifiers: []*flow.ClassifierSpec{{
			Policy: "p", Selectors: []flow.Selector{{ControlPoint: "cp", Match: label.Expr{}}}, Rules: labelsOf{[]string{"x", "a b"}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{Engine: e, CheckResponse: func(_ *flow.Flow, r *flow.Request, _ time.Time, _ []byte) string { return r.HTTP.Body }})
}

// checkAnswer fails for an answer that Envoy must not get.
func checkAnswer(out *authv3.CheckResponse) error {
	if _, err := proto.Marshal(out); err != nil {
		return err
	}
	var all []*corev3.HeaderValueOption
	all = append(all, out.GetOkResponse().GetHeaders()...)
	all = append(all, out.GetOkResponse().GetResponseHeadersToAdd()...)
	all = append(all, out.GetDeniedResponse().GetHeaders()...)
	for _, h := range all {
		if strings.ContainsFunc(h.Header.Value, func(r rune) bool { return r < ' ' || r > '~' }) || h.Header.Key == "" {
			return errors.New("header " + h.Header.Key + " has the value " + h.Header.Value)
		}
	}
	if body := out.GetDeniedResponse().GetBody(); !utf8.ValidString(body) || strings.ContainsAny(strings.TrimSuffix(body, "\n"), "\r\n\x00") {
		return errors.New("the body is " + body)
	}
	return nil
}

func TestLabelsCannotSmuggleHeaders(t *testing.T) {
	d := hostileDoor(t)
	for _, value := range []string{
		"a\r\nx-evil: 1", "a\nb", "a\rb", "a\x00b", "a\x7fb", "\xff\xfe", "käse", "a,b=c;d", strings.Repeat("x", 1<<20), "\r\n\r\nHTTP/1.1 200 OK",
	} {
		for range 5 { // admitted, then denied
			in := asked("control-point", "cp", "label."+value, value, "label.user", value)
			h := in.Attributes.Request.Http
			h.RawBody, h.Headers["x-user"], h.Headers["baggage"] = []byte(value), value, value+"=1"
			out, err := checks{d}.Check(t.Context(), in)
			if err != nil {
				t.Fatalf("%.40q: %v", value, err)
			}
			if err := checkAnswer(out); err != nil {
				t.Errorf("%.40q: %.200v", value, err)
			}
		}
	}
}

func TestBaggageIsAppendedToWhatCame(t *testing.T) {
	for came, want := range map[string]struct {
		value  string
		append bool
	}{
		"":                {"x=body", false},
		"a=1;p, b=2":      {"x=body", true},
		"k\u00e4se=1":     {"x=body", true},      // not as it should be, but not ours to change
		"a=1\r\nb: c,d=1": {"d=1,x=body", false}, // must not go on
	} {
		in := asked("control-point", "cp", "label.user", came)
		h := in.Attributes.Request.Http
		h.Headers, h.Body = map[string]string{"baggage": came}, "body"
		if came == "" {
			h.Headers = nil
		}
		got := check(t, hostileDoor(t), t.Context(), in).GetOkResponse().GetHeaders()
		var text string
		for _, g := range got {
			text = g.Header.Value
			//nolint:staticcheck // the flag is what is tested
			if g.GetAppend().GetValue() != want.append {
				t.Errorf("%q: append is %v, want %v", came, g.GetAppend().GetValue(), want.append)
			}
		}
		if text != want.value {
			t.Errorf("%q: got %q, want %q", came, text, want.value)
		}
	}
}

func TestUnfitHeadersAreLeftOut(t *testing.T) {
	d := New(Config{Engine: newEngine(t)})
	for _, value := range []string{"a\r\nb", "a\x00", "é", "\x7f"} {
		if got := d.addHeader(nil, "baggage", value, 0); got != nil {
			t.Errorf("%q became the header %v", value, got)
		}
	}
	if got := d.addHeader(nil, "baggage", "a=1,b=2;c", 0); len(got) != 1 {
		t.Errorf("got %v, want the header", got)
	}
	wantCount(t, d, "sluice_extauthz_dropped_headers_total", "", 4)
}

func TestHugeRequests(t *testing.T) {
	d := hostileDoor(t)
	in := asked("control-point", "cp")
	h := in.Attributes.Request.Http
	h.Headers["x-big"], h.Body = strings.Repeat("h", 10<<20), strings.Repeat("{", 10<<20)
	for i := range 100_000 {
		h.Headers["x-"+strings.Repeat("i", i%50)+string(rune('a'+i%26))] = "v"
	}
	if err := checkAnswer(check(t, d, t.Context(), in)); err != nil {
		t.Errorf("10 MB: %.200v", err)
	}
	in = asked("control-point", strings.Repeat("c", 10<<20))
	if got := check(t, d, t.Context(), in); got.GetDeniedResponse().GetStatus().GetCode() != 400 {
		t.Errorf("a control point of 10 MB: got %.200v, want 400", got)
	}
	in = asked("control-point", "cp")
	for i := range flow.MaxLabels + 1 {
		in.Attributes.ContextExtensions[labelPrefix+strings.Repeat("l", i)] = "v"
	}
	if got := check(t, d, t.Context(), in); got.GetDeniedResponse().GetStatus().GetCode() != 400 {
		t.Errorf("too many labels: got %.200v, want 400", got)
	}
}

// FuzzCheck sends bytes as a request, and a text in all places of a request where a user's text may stand: there is an
// answer that is fit for Envoy, or an error of the call.
func FuzzCheck(f *testing.F) {
	add := func(in *authv3.CheckRequest) {
		raw, err := proto.Marshal(in)
		if err != nil {
			f.Fatal(err)
		}
		for _, text := range []string{"", "ann", "a\r\nb: c", "%0d%0a", "a=1,b=2;p", "\xff", `{"a": "b"}`} {
			f.Add(raw, text)
		}
	}
	add(asked())
	add(asked("control-point", "cp", "label.user", "ann", "ramp-mode", "true", "no-end", "true"))
	in := asked("control-point", "cp")
	in.Attributes.Request.Http.Headers["baggage"] = "a=1,b=%0d%0a;p=1"
	in.Attributes.Request.Http.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "x", RawValue: []byte{0xff}}}}
	in.Attributes.Request.Http.RawBody = []byte("\r\n")
	in.Attributes.MetadataContext = &corev3.Metadata{FilterMetadata: tokenMetadata("AAAA,BBBB").Metadata.FilterMetadata}
	add(in)
	d := hostileDoor(f)
	f.Fuzz(func(t *testing.T, raw []byte, text string) {
		var in authv3.CheckRequest
		if proto.Unmarshal(raw, &in) != nil {
			t.Skip()
		}
		if h := in.GetAttributes().GetRequest().GetHttp(); h != nil && text != "" {
			h.Path, h.Host, h.Body = text, text, text
			h.Headers = map[string]string{"baggage": text, "x": text, text: "y"}
			in.Attributes.ContextExtensions = map[string]string{"control-point": "cp", labelPrefix + text: text, labelPrefix + "x": text}
		}
		out, err := checks{d}.Check(t.Context(), &in)
		switch {
		case err != nil && status.Code(err) != codes.InvalidArgument:
			t.Errorf("got %v, want an answer or InvalidArgument", err)
		case err == nil:
			if err := checkAnswer(out); err != nil {
				t.Error(err)
			}
		}
	})
}

func tokenMetadata(text string) *datav3.AccessLogCommon {
	return entryOf(200, tokenFields(text)).CommonProperties
}

// FuzzAccessLog sends bytes as a message of an access log: nothing of it does harm.
func FuzzAccessLog(f *testing.F) {
	d := New(Config{Engine: newEngine(f, slotSpec(1, flow.ConcurrencyLimiter))})
	good := check(f, d, f.Context(), asked("control-point", "slots"))
	for _, entry := range []*datav3.HTTPAccessLogEntry{{}, entryOf(200, good.DynamicMetadata), entryOf(0, tokenFields("A,B,,"))} {
		raw, err := proto.Marshal(&accesslogv3.StreamAccessLogsMessage{
			LogEntries: &accesslogv3.StreamAccessLogsMessage_HttpLogs{
				HttpLogs: &accesslogv3.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: []*datav3.HTTPAccessLogEntry{entry}},
			},
		})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m accesslogv3.StreamAccessLogsMessage
		if proto.Unmarshal(raw, &m) != nil {
			t.Skip()
		}
		s := &stream{messages: []*accesslogv3.StreamAccessLogsMessage{&m}}
		if err := (accessLog{d}).StreamAccessLogs(s); err != nil {
			t.Error(err)
		}
		for _, entry := range m.GetHttpLogs().GetLogEntry() {
			o := outcome(entry, nil)
			if o.Duration < 0 || o.HTTPStatus < 0 || o.HTTPStatus > 999 {
				t.Errorf("got %+v", o)
			}
		}
	})
}
