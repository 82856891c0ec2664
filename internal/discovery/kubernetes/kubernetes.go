// SPDX-License-Identifier: Apache-2.0

// Package kubernetes tells a directory of services what a Kubernetes cluster knows: the endpoints behind services,
// of EndpointSlices, and the addresses of services themselves.
//
// It lists and watches two resources with a reflector of client-go and a dynamic client, and keeps of every
// object only what the directory needs. Typed clients would do the same and make the program 19 MiB larger.
// What is known stays known while the API server is away; changes are collected before they are published,
// because a directory builds a new snapshot for every change.
package kubernetes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/sluice-project/sluice/internal/discovery"
	"github.com/sluice-project/sluice/internal/fielderr"
)

// Config says what to watch. The zero Config watches the cluster that this process is a pod of.
type Config struct {
	// Kubeconfig is a file that says how to reach the cluster; "": the service account of this pod.
	Kubeconfig string
	// Namespace narrows to the services of one; "": all.
	Namespace string
	// Node narrows to the endpoints on one; "": all. Addresses of services are known in any case.
	Node string
	// ClusterDomain is what names of services end with; "": DefaultClusterDomain.
	ClusterDomain string
	// MaxEntities bounds what is kept; 0: discovery.DefaultMaxEntities.
	MaxEntities int
	// UserAgent names this program to the API server; "": that of client-go.
	UserAgent string
	// Logger; nil: no log.
	Logger *slog.Logger
}

// DefaultClusterDomain is the domain of clusters that were not told another.
const DefaultClusterDomain = "cluster.local"

// Validate reports every mistake, each with its path below the section of discovery.
func (c Config) Validate() fielderr.List {
	var found fielderr.List
	check := func(path, value string, problems func(string) []string) {
		if value != "" && len(problems(value)) > 0 {
			found = append(found, &fielderr.Error{Path: "kubernetes." + path, Got: fmt.Sprintf("%.80q", value), Want: problems(value)[0]})
		}
	}
	check("namespace", c.Namespace, validation.IsDNS1123Label)
	check("node", c.Node, validation.IsDNS1123Subdomain)
	check("cluster_domain", c.ClusterDomain, validation.IsDNS1123Subdomain)
	return found
}

// Source watches a cluster.
type Source struct {
	config Config
	client dynamic.Interface
	log    *slog.Logger
	kept   *kept
}

// New reads how to reach the cluster. It does not speak to it yet.
func New(config Config) (*Source, error) {
	if err := config.Validate().Err(); err != nil {
		return nil, err
	}
	access, err := restConfig(config.Kubeconfig)
	if err != nil {
		return nil, err
	}
	access.UserAgent = config.UserAgent
	access.WarningHandler = rest.NoWarnings{}
	client, err := dynamic.NewForConfig(access)
	if err != nil {
		return nil, fmt.Errorf("discovery.kubernetes: %w", err)
	}
	return newSource(config, client), nil
}

func restConfig(file string) (*rest.Config, error) {
	if file == "" {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("discovery.kubernetes: this is not a pod of a cluster: set discovery.kubernetes.kubeconfig to a file that says how to reach one")
		}
		if err != nil {
			return nil, fmt.Errorf("discovery.kubernetes: the service account of this pod cannot be used: %w", err)
		}
		return config, nil
	}
	raw, err := clientcmd.LoadFromFile(file)
	if err != nil {
		return nil, fmt.Errorf("discovery.kubernetes.kubeconfig: %w", err)
	}
	config, err := clientcmd.NewDefaultClientConfig(*raw, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("discovery.kubernetes.kubeconfig: %s: %w", file, err)
	}
	return config, nil
}

func newSource(config Config, client dynamic.Interface) *Source {
	config.ClusterDomain = cmp.Or(strings.Trim(config.ClusterDomain, "."), DefaultClusterDomain)
	config.MaxEntities = cmp.Or(config.MaxEntities, discovery.DefaultMaxEntities)
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Source{config: config, client: client, log: config.Logger, kept: newKept(config.MaxEntities)}
}

// The resources that are watched.
var (
	sliceResource   = schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}
	serviceResource = schema.GroupVersionResource{Version: "v1", Resource: "services"}
)

// Times between changes and their publication. It takes at least gather, and so long that publishing takes at most
// a tenth of the time.
const (
	gather    = 200 * time.Millisecond
	maxGather = 30 * time.Second
)

// Run tells feed what the cluster has until ctx ends, which is no error. Call it once.
func (s *Source) Run(ctx context.Context, feed *discovery.Feed) error {
	// What goes wrong is told by the status of the feed and our own log; client-go would repeat it.
	ctx = klog.NewContext(ctx, klog.Logger{}) // the zero one discards
	feed.Problem("the cluster has not answered yet")
	var parts sync.WaitGroup
	for _, r := range []*resource{
		{source: s, name: sliceResource, convert: s.fromSlice, feed: feed},
		{source: s, name: serviceResource, convert: s.fromService, feed: feed},
	} {
		s.kept.add(r.name.Resource)
		parts.Go(func() { r.run(ctx) })
	}
	parts.Go(func() { s.publish(ctx, feed) })
	parts.Wait()
	return nil
}

// publish tells the feed what has changed until ctx ends.
func (s *Source) publish(ctx context.Context, feed *discovery.Feed) {
	wait := gather
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kept.changed:
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		began := time.Now()
		state := s.kept.read()
		if state.dirty {
			feed.Set(s.kept.entities())
		}
		feed.Confirm(state.confirmed)
		feed.Problem(state.problem)
		wait = min(max(gather, 10*time.Since(began)), maxGather)
	}
}

// explain says what a failure means and what to do.
func explain(resource string, err error) string {
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fmt.Sprintf("the cluster does not let this server list and watch %s: bind it to a ClusterRole that may (docs/guides/discovery.md has one)", resource)
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("the cluster has no %s: it needs Kubernetes 1.21 or later", resource)
	}
	return fmt.Sprintf("%s: %v", resource, err)
}
