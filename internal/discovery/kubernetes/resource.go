// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sluice-project/sluice/internal/discovery"
)

// resource is one kind of objects that is watched. It is the store of its reflector, which lists, watches, and
// does so again when something fails, waiting longer each time, 30 s at most.
type resource struct {
	source  *Source
	name    schema.GroupVersionResource
	convert func(*unstructured.Unstructured) []discovery.Entity
	feed    *discovery.Feed
}

var (
	_ cache.TransformingStore      = (*resource)(nil)
	_ cache.ReflectorBookmarkStore = (*resource)(nil)
)

// relistAfter is how often everything is listed anew while something was left out for which there is room now.
const relistAfter = time.Minute

// run watches until ctx ends.
func (r *resource) run(ctx context.Context) {
	for ctx.Err() == nil {
		r.reflect(ctx)
	}
}

// reflect watches until ctx ends, or everything has to be listed anew.
func (r *resource) reflect(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var starving sync.WaitGroup
	starving.Go(func() { r.awaitRoom(ctx, cancel) })
	defer starving.Wait()
	defer cancel()
	logger := klog.FromContext(ctx)
	reflector := cache.NewReflectorWithOptions(
		cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{ListWithContextFunc: r.list, WatchFuncWithContext: r.watch}, r.source.client),
		&unstructured.Unstructured{}, r,
		cache.ReflectorOptions{Name: r.name.Resource, TypeDescription: r.name.Resource, Logger: &logger, Clock: endingClock{ctx: ctx}},
	)
	reflector.RunWithContext(ctx)
}

// awaitRoom calls relist when something was left out for which there is room by now.
func (r *resource) awaitRoom(ctx context.Context, relist func()) {
	tick := time.NewTicker(relistAfter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if r.source.kept.starved(r.name.Resource) {
				relist()
				return
			}
		}
	}
}

// list asks for a page of objects.
func (r *resource) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	list, err := r.source.client.Resource(r.name).Namespace(r.source.config.Namespace).List(ctx, options)
	r.note(ctx, err)
	if err != nil {
		return nil, err // not a list that is nil
	}
	return list, nil
}

// watch asks for changes.
func (r *resource) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	w, err := r.source.client.Resource(r.name).Namespace(r.source.config.Namespace).Watch(ctx, options)
	if options.SendInitialEvents == nil || !apierrors.IsInvalid(err) { // else the server is an old one, and is asked for a list next
		r.note(ctx, err)
	}
	return w, err
}

// note keeps what went wrong, if something did. That a resource version is too old is part of the game.
func (r *resource) note(ctx context.Context, err error) {
	if err == nil {
		r.update(func(*table) {})
		return
	}
	if ctx.Err() != nil || errors.Is(err, io.EOF) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return
	}
	text := explain(r.name.Resource, err)
	r.feed.Failed()
	if r.source.kept.fail(r.name.Resource, text) {
		r.source.log.Warn("watching the cluster for services failed", "resource", r.name.Resource, "error", text)
	}
}

// piece is an object of which only what counts is left.
type piece struct {
	namespace, name string
	entities        []discovery.Entity
}

var _ metav1.ObjectMetaAccessor = (*piece)(nil)

// GetObjectMeta implements metav1.ObjectMetaAccessor.
func (p *piece) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: p.namespace, Name: p.name}
}

func (p *piece) key() string { return p.namespace + "/" + p.name }

// Transformer implements cache.TransformingStore: while a reflector collects objects, they are small already.
func (r *resource) Transformer() cache.TransformFunc {
	return func(o any) (any, error) { return r.piece(o), nil }
}

// piece is nil for anything else than an object.
func (r *resource) piece(o any) *piece {
	switch o := o.(type) {
	case *piece:
		return o
	case *unstructured.Unstructured:
		return &piece{o.GetNamespace(), o.GetName(), r.convert(o)}
	}
	return nil
}

// update changes what is known: the cluster has answered.
func (r *resource) update(change func(*table)) {
	if r.source.kept.update(r.name.Resource, change) {
		r.source.log.Info("watching the cluster for services works again", "resource", r.name.Resource)
	}
}

// Add implements cache.ReflectorStore.
func (r *resource) Add(o any) error { return r.Update(o) }

// Update implements cache.ReflectorStore.
func (r *resource) Update(o any) error {
	p := r.piece(o)
	if p == nil {
		return nil
	}
	k := r.source.kept
	r.update(func(t *table) { k.put(t, p.key(), p.entities) })
	return nil
}

// Delete implements cache.ReflectorStore.
func (r *resource) Delete(o any) error {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	k := r.source.kept
	r.update(func(t *table) { k.put(t, u.GetNamespace()+"/"+u.GetName(), nil) })
	return nil
}

// Replace implements cache.ReflectorStore.
func (r *resource) Replace(objects []any, _ string) error {
	pieces := make(map[string]*piece, len(objects))
	for _, o := range objects {
		if p := r.piece(o); p != nil {
			pieces[p.key()] = p
		}
	}
	k := r.source.kept
	r.update(func(t *table) {
		for key := range t.objects {
			if pieces[key] == nil {
				k.put(t, key, nil)
			}
		}
		for key := range t.leftOut {
			if pieces[key] == nil {
				k.put(t, key, nil)
			}
		}
		for key, p := range pieces {
			k.put(t, key, p.entities)
		}
	})
	r.source.log.Info("listed the cluster", "resource", r.name.Resource, "objects", len(objects))
	return nil
}

// Resync implements cache.ReflectorStore.
func (r *resource) Resync() error { return nil }

// Bookmark implements cache.ReflectorBookmarkStore: the server tells that nothing else has happened.
func (r *resource) Bookmark(string) error {
	r.update(func(*table) {})
	return nil
}

// endingClock is the real one, except that nobody waits for it any longer once its context has ended: some waits
// of reflectors do not look at their context.
type endingClock struct {
	clock.RealClock
	ctx context.Context
}

// After implements clock.Clock.
func (c endingClock) After(d time.Duration) <-chan time.Time {
	out := make(chan time.Time, 1)
	over, cancel := context.WithTimeout(c.ctx, d)
	context.AfterFunc(over, func() {
		cancel()
		out <- time.Now()
	})
	return out
}
