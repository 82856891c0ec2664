// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// EnvPrefix begins the name of every environment variable.
const EnvPrefix = "SLUICE_"

// Sources is where settings come from.
type Sources struct {
	// File is the path of a YAML file; "" reads none.
	File string
	// Environ has the form of os.Environ.
	Environ []string
	// Flags are the values of flags that were given, by key, for example log.level.
	Flags map[string]Flag
}

// Flag is a value from the command line.
type Flag struct {
	Name  string // as typed, for example --log-level
	Value string
}

// Loaded is the result of Load.
type Loaded struct {
	Config Config
	// Warnings are about things that are allowed but look wrong.
	Warnings fielderr.List
}

// Load composes the configuration. The error is a fielderr.List of every mistake, or tells why the file
// cannot be read.
func Load(s Sources) (Loaded, error) {
	l := &loader{config: Default(), origin: map[string]string{}}
	if err := l.file(s.File); err != nil {
		return Loaded{}, err
	}
	l.environment(s.Environ)
	for _, key := range slices.Sorted(maps.Keys(s.Flags)) {
		f := s.Flags[key]
		l.set(key, f.Value, f.Name)
	}
	if l.config.DataDir == "" {
		l.config.DataDir = defaultDataDir(s.Environ)
	}
	l.validate()
	return Loaded{l.config, l.warnings}, l.problems.Err()
}

type loader struct {
	config   Config
	root     *strict.Node      // of the file; nil when there is none
	path     string            // of the file
	origin   map[string]string // key → environment variable or flag that set it
	problems fielderr.List
	warnings fielderr.List
}

func (l *loader) file(path string) error {
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("configuration file %s does not exist: correct --config or %sCONFIG, or leave it out to run with defaults", path, EnvPrefix)
	}
	if err != nil {
		return fmt.Errorf("read the configuration file: %w", err)
	}
	if isBlank(string(text)) {
		return nil
	}
	doc, err := strict.Parse(path, text)
	if err != nil {
		var mistakes fielderr.List
		if errors.As(err, &mistakes) {
			return hideSecrets(mistakes)
		}
		return err
	}
	doc.Decode("", doc.Root, &l.config)
	refused, warnings := doc.Problems()
	l.problems, l.warnings = hideSecrets(refused), hideSecrets(warnings)
	l.root, l.path = doc.Root, path
	return nil
}

// isBlank tells whether a file has nothing but comments, which sets nothing.
func isBlank(text string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}

// clientVars are read by the commands that talk to a server.
var clientVars = []string{"CONFIG", "SERVER", "TOKEN", "OUTPUT"}

// injected matches the variables that Kubernetes makes for a service called sluice.
var injected = regexp.MustCompile(`^(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)$`)

func (l *loader) environment(environ []string) {
	keys := map[string]string{}
	names := slices.Clone(clientVars)
	for _, k := range Keys() {
		name := strings.TrimPrefix(k.Env, EnvPrefix)
		keys[name] = k.Name
		names = append(names, name)
	}
	for _, entry := range environ {
		variable, value, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(variable, EnvPrefix)
		if !ours || slices.Contains(clientVars, name) || injected.MatchString(name) {
			continue
		}
		if key, known := keys[name]; known {
			l.set(key, value, variable)
			continue
		}
		w := &fielderr.Error{Severity: fielderr.Warning, File: variable, Message: "no setting has this name; it is ignored"}
		if meant, ok := fielderr.Suggest(name, names); ok {
			w.Hint = fmt.Sprintf("did you mean %s%s?", EnvPrefix, meant)
		}
		l.warnings = append(l.warnings, w)
	}
}

// set reads text as the value of a key. An empty value means unset: the value before stays.
func (l *loader) set(key, text, origin string) {
	if strings.TrimSpace(text) == "" {
		return
	}
	k, ok := keyNamed(key)
	if !ok {
		l.problems = append(l.problems, &fielderr.Error{File: origin, Path: key, Message: "no setting has this name"})
		return
	}
	doc, err := strict.Parse(origin, []byte(k.document(text)))
	var scratch Config
	problems := fielderr.List{}
	if err != nil {
		errors.As(err, &problems)
	} else {
		doc.Decode("", doc.Root, &scratch)
		problems, _ = doc.Problems()
	}
	for _, p := range hideSecrets(problems) {
		p.File, p.Line, p.Column, p.Excerpt = origin, 0, 0, ""
		if p.Path == "" {
			p.Path = key
		}
		l.problems = append(l.problems, p)
	}
	if len(problems) == 0 {
		k.value(&l.config).Set(k.value(&scratch))
		l.origin[key] = origin
	}
}

// document writes a configuration file with nothing but this key.
func (k Key) document(text string) string {
	var out strings.Builder
	parts := strings.Split(k.Name, ".")
	for i, p := range parts {
		fmt.Fprintf(&out, "%s%s:", strings.Repeat("  ", i), p)
		if i < len(parts)-1 {
			out.WriteByte('\n')
		}
	}
	text = strings.TrimSpace(text)
	switch {
	case k.kind == reflect.Map, k.kind == reflect.Slice && (k.elem != reflect.String || strings.HasPrefix(text, "[")):
		return out.String() + " " + strings.ReplaceAll(text, "\n", " ")
	case k.kind == reflect.Slice:
		var items []string
		for item := range strings.SplitSeq(text, ",") {
			items = append(items, quote(strings.TrimSpace(item)))
		}
		return out.String() + " [" + strings.Join(items, ", ") + "]"
	case k.kind != reflect.String && bare.MatchString(text):
		return out.String() + " " + text
	}
	return out.String() + " " + quote(text)
}

// bare is text that YAML reads as what it looks like.
var bare = regexp.MustCompile(`^[A-Za-z0-9.+_-]+$`)

func quote(text string) string {
	b, err := json.Marshal(text)
	if err != nil { // never of a string
		return `""`
	}
	return string(b)
}

// validate adds what Validate finds, with the place where the value was set.
func (l *loader) validate() {
	for _, p := range l.config.Validate() {
		if slices.ContainsFunc(l.problems, func(q *fielderr.Error) bool { return q.Path == p.Path }) {
			continue // the value could not be read in the first place
		}
		if origin := l.originOf(p.Path); origin != "" {
			p.File = origin
		} else if n := nodeAt(l.root, p.Path); n != nil {
			p.File, p.Line, p.Column = l.path, n.Line, n.Column
		}
		l.problems = append(l.problems, p)
	}
}

// originOf finds what set a key or the list it is in.
func (l *loader) originOf(path string) string {
	for path != "" {
		if origin := l.origin[path]; origin != "" {
			return origin
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return ""
}

// nodeAt follows a path, as far as the file goes.
func nodeAt(n *strict.Node, path string) *strict.Node {
	var found *strict.Node
	for part := range strings.SplitSeq(strings.ReplaceAll(path, "[", ".["), ".") {
		if n == nil {
			return found
		}
		var i int
		if _, err := fmt.Sscanf(part, "[%d]", &i); err == nil {
			if i >= len(n.Items) {
				return found
			}
			n = n.Items[i]
		} else {
			n = n.Get(part)
		}
		if n != nil {
			found = n
		}
	}
	return found
}

// secretSections have secrets in them.
var secretSections = []string{"auth", "alerts", "signals"}

// hideSecrets takes values and excerpts out of problems near secrets.
func hideSecrets(l fielderr.List) fielderr.List {
	for _, p := range l {
		near := func(section string) bool { return strings.HasPrefix(p.Path, section) }
		if p.Path == "" || slices.ContainsFunc(secretSections, near) {
			p.Excerpt, p.Got = "", ""
		}
	}
	return l
}

// defaultDataDir is a place that a laptop, a service and a container all have.
func defaultDataDir(environ []string) string {
	env := map[string]string{}
	for _, entry := range environ {
		k, v, _ := strings.Cut(entry, "=")
		env[k] = v
	}
	if state := env["XDG_STATE_HOME"]; filepath.IsAbs(state) {
		return filepath.Join(state, "sluice")
	}
	for _, home := range []string{env["HOME"], env["USERPROFILE"]} {
		if filepath.IsAbs(home) && filepath.Clean(home) != string(filepath.Separator) {
			return filepath.Join(home, ".local", "state", "sluice")
		}
	}
	return filepath.FromSlash("/var/lib/sluice")
}
