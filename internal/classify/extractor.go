// SPDX-License-Identifier: Apache-2.0

package classify

import (
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/sluice-project/sluice/internal/label/extract"
)

// read takes an attribute from a request; ok is false when the request does not have it.
func read(r *Request, a *extract.Attribute) (value string, ok bool) {
	switch a.Field {
	case extract.ID:
		return r.ID, r.ID != ""
	case extract.Method:
		return r.Method, true
	case extract.Path:
		return r.Path, true
	case extract.Host:
		return r.Host, true
	case extract.Protocol:
		return r.Protocol, true
	case extract.Body:
		return r.Body, true
	case extract.Header:
		value, ok = r.Headers[a.Name]
		return value, ok
	case extract.Bearer:
		return strings.CutPrefix(r.Headers["authorization"], "Bearer ")
	case extract.Metadata:
		return metadata(r.Metadata, a.Path)
	case extract.Source, extract.SourceAddress, extract.SourcePort, extract.SourcePipe:
		return r.Source.part(a.Field - extract.Source)
	case extract.Destination, extract.DestinationAddress, extract.DestinationPort, extract.DestinationPipe:
		return r.Destination.part(a.Field - extract.Destination)
	}
	return "", false
}

// part takes a part of an address: 0 all of it, then the address, the port and the path of a socket.
func (a Address) part(part extract.Field) (string, bool) {
	pipe := strings.HasPrefix(a.Text, "/") || strings.HasPrefix(a.Text, "@")
	switch {
	case a.Text == "":
		return "", false
	case part == 0 && pipe, part == 3 && pipe, part == 1 && !pipe:
		return a.Text, true
	case part == 0:
		return net.JoinHostPort(a.Text, strconv.FormatUint(uint64(a.Port), 10)), true
	case part == 2 && !pipe:
		return strconv.FormatUint(uint64(a.Port), 10), true
	}
	return "", false
}

// metadata follows names through nested maps. Keys may have dots: the longest key that leads anywhere counts.
func metadata(m map[string]any, path []string) (string, bool) {
	for n := len(path); n > 0; n-- {
		v, ok := m[strings.Join(path[:n], ".")]
		if !ok {
			continue
		}
		if n == len(path) {
			return anyText(v)
		}
		if inner, isMap := v.(map[string]any); isMap {
			if text, ok := metadata(inner, path[n:]); ok {
				return text, true
			}
		}
	}
	return "", false
}

// step makes one label, or several from the same text.
type step interface {
	// run appends labels.
	run(in *Input, out []Label) ([]Label, *Error)
}

// jsonStep makes labels from JSON in one attribute, in one pass.
type jsonStep struct {
	from     extract.Attribute
	token    bool // the attribute is a JSON Web Token
	pointers []extract.Pointer
	labels   []Label // by pointer, without values
	bounds   Bounds
}

func (s *jsonStep) run(in *Input, out []Label) ([]Label, *Error) {
	text, ok := read(in.Request, &s.from)
	if !ok || text == "" || len(text) > s.bounds.MaxBodyBytes {
		return out, nil
	}
	if s.token {
		if text, ok = payload(text); !ok {
			in.Note(MalformedJWT)
			return out, nil
		}
	}
	scan := scanners.Get().(*scanner)
	*scan = scanner{text: text, pointers: s.pointers, found: append(scan.found[:0], make([]string, len(s.pointers))...)}
	if scan.scan() {
		for i, raw := range scan.found {
			if raw != "" {
				out = append(out, s.labels[i].with(jsonText(raw), s.bounds))
			}
		}
	} else {
		in.Note(s.malformed())
	}
	clear(scan.found)
	*scan = scanner{found: scan.found}
	scanners.Put(scan)
	return out, nil
}

// malformed is what text is that is no JSON.
func (s *jsonStep) malformed() Malformed {
	if s.token {
		return MalformedJWT
	}
	return MalformedJSON
}

var scanners = sync.Pool{New: func() any { return new(scanner) }}

// payload decodes the payload of a JSON Web Token in its compact form (RFC 7519), and verifies nothing.
func payload(token string) (string, bool) {
	header, rest, ok := strings.Cut(token, ".")
	body, signature, more := strings.Cut(rest, ".")
	if !ok || !more || header == "" || body == "" || strings.IndexByte(signature, '.') >= 0 {
		return "", false
	}
	body = strings.TrimRight(body, "=")
	var buffer [1024]byte
	decoded := buffer[:0]
	if n := base64.RawURLEncoding.DecodedLen(len(body)); n > len(buffer) {
		decoded = make([]byte, 0, n)
	}
	decoded, err := base64.RawURLEncoding.AppendDecode(decoded, []byte(body))
	return string(decoded), err == nil
}

// attributeStep makes a label of an attribute as it is.
type attributeStep struct {
	from   extract.Attribute
	label  Label
	bounds Bounds
}

func (s *attributeStep) run(in *Input, out []Label) ([]Label, *Error) {
	if value, ok := read(in.Request, &s.from); ok {
		out = append(out, s.label.with(value, s.bounds))
	}
	return out, nil
}

// pathStep makes a label of the template that the path matches.
type pathStep struct {
	templates *extract.Templates
	label     Label
	bounds    Bounds
}

func (s *pathStep) run(in *Input, out []Label) ([]Label, *Error) {
	if value, ok := s.templates.Match(in.Request.Path); ok {
		out = append(out, s.label.with(value, s.bounds))
	}
	return out, nil
}

// NewLabel makes a label with a value as classifiers give it: cut to its bounds, valid UTF-8, and sanitized.
func NewLabel(key, value string, telemetry bool, b Bounds) Label {
	return Label{Key: key, Telemetry: telemetry}.with(value, b)
}

// with is the label with a value: cut to its bounds, valid UTF-8, and sanitized. Bodies may have any bytes, and an answer
// of gRPC with a label that is no UTF-8 would never be sent.
func (l Label) with(value string, b Bounds) Label {
	value = cut(value, b.MaxValueBytes)
	if !utf8.ValidString(value) {
		value = cut(strings.ToValidUTF8(value, "\uFFFD"), b.MaxValueBytes)
	}
	l.Value = Sanitize(value)
	return l
}

// cut shortens text at the beginning of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && s[limit]&0xC0 == 0x80 {
		limit--
	}
	return s[:limit]
}

// compile makes the step of an extractor, without its label.
func (e *Extractor) compile(b Bounds) (step, error) {
	var steps []step
	add := func(s step, err error) error {
		steps = append(steps, s)
		return err
	}
	var err error
	if e.From != "" {
		from, problem := extract.ParseAttribute(e.From)
		err = add(&attributeStep{from: from, bounds: b}, within("from", problem))
	}
	if e.Address != "" {
		from, problem := extract.ParseAddress(e.Address)
		err = add(&attributeStep{from: from, bounds: b}, within("address", problem))
	}
	if e.JSON != nil {
		err = add(e.JSON.compile("json", b))
	}
	if e.JWT != nil {
		err = add(e.JWT.compile("jwt", b))
	}
	if e.PathTemplates != nil {
		templates, problem := extract.NewTemplates(e.PathTemplates)
		err = add(&pathStep{templates: templates, bounds: b}, within("path_templates", problem))
	}
	if e.CEL != "" {
		err = add(compileCEL(e.CEL, b))
	}
	switch {
	case err != nil:
		return nil, err
	case len(steps) != 1:
		return nil, fmt.Errorf("got %d extractors, want one of from, json, address, jwt, path_templates, cel", len(steps))
	}
	return steps[0], nil
}

func within(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

func (j *JSON) compile(name string, b Bounds) (step, error) {
	from, err := extract.ParseAttribute(j.From)
	if err != nil {
		return nil, within(name, err)
	}
	pointer, err := extract.ParsePointer(j.Pointer)
	if err != nil {
		return nil, within(name, err)
	}
	return &jsonStep{from: from, token: name == "jwt", pointers: []extract.Pointer{pointer}, bounds: b}, nil
}

// setLabel gives a step its label.
func setLabel(s step, l Label) {
	switch s := s.(type) {
	case *jsonStep:
		s.labels = []Label{l}
	case *attributeStep:
		s.label = l
	case *pathStep:
		s.label = l
	case *celStep:
		s.label = l
	}
}

// join makes one step of those that read JSON from the same attribute.
func join(steps []step) []step {
	var out []step
	type source struct {
		field extract.Field
		name  string
		token bool
	}
	open := map[source]*jsonStep{}
	for _, s := range steps {
		j, ok := s.(*jsonStep)
		if !ok {
			out = append(out, s)
			continue
		}
		key := source{j.from.Field, j.from.Name + "/" + strings.Join(j.from.Path, "."), j.token}
		if other := open[key]; other != nil && len(other.pointers) < maxPointers {
			other.pointers = append(other.pointers, j.pointers...)
			other.labels = append(other.labels, j.labels...)
			continue
		}
		open[key] = j
		out = append(out, j)
	}
	return out
}
